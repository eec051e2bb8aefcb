"""Voice activity detection with the real model, on speech whose place is known."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gateway.audio import vad
from gateway.audio.vad import FRAME_BYTES, VadClosedError, VadEngine, VadOverloadedError, VadStream
from gateway.session.endpointer import Endpointer, EndpointerConfig, Utterance
from tools.lab.digit_speech import VOICES, random_digits, speak

Samples = npt.NDArray[np.int16]


@pytest.fixture
async def engine() -> AsyncIterator[VadEngine]:
    engine = VadEngine()
    engine.start()
    yield engine
    engine.close()


def test_turns_of_many_requests_are_further_apart() -> None:
    pauses_s = [vad._pause_s(requests) for requests in range(20)]
    assert pauses_s[1] < vad.TURN_EVERY_S / 4
    assert pauses_s == sorted(pauses_s)
    assert pauses_s[-1] == vad.TURN_EVERY_S


def whole_frames(samples: Samples) -> bytes:
    return np.pad(samples, (0, -len(samples) % 512)).astype("<i2").tobytes()


async def utterances_of(engine: VadEngine, samples: Samples) -> list[Utterance]:
    probabilities = await engine.probabilities(VadStream(), whole_frames(samples))
    endpointer = Endpointer(EndpointerConfig(endpoint_silence_ms=600))
    return endpointer.push(probabilities) + endpointer.boundary(len(samples))


def loud_places(samples: Samples, range_db: float) -> npt.NDArray[np.int64]:
    """Middles of the 20 ms pieces within ``range_db`` of the loudest: surely speech."""
    pieces = samples[: len(samples) // 320 * 320].astype(np.float64).reshape(-1, 320)
    levels_db = 10 * np.log10((pieces**2).mean(axis=1) + 1e-9)
    return np.flatnonzero(levels_db > levels_db.max() - range_db) * 320 + 160


@pytest.mark.parametrize(
    ("gain", "noise_rms"), [(1.0, 0.0), (0.1, 0.0), (1.0, 150.0)], ids=["clean", "quiet", "noisy"]
)
async def test_every_digit_of_every_voice_lies_in_an_utterance(
    engine: VadEngine, gain: float, noise_rms: float
) -> None:
    rng = random.Random(11)
    noise = np.random.default_rng(11)
    clean = [
        speak(random_digits(rng, 4), voice, rng, pause_every=pause, lead_ms=lead, tail_ms=50)
        for voice in VOICES
        for pause, lead in [(1, 0), (2, 300), (None, 50)]
        for _ in range(5)
    ]
    heard = [
        np.clip(gain * s + noise_rms * noise.standard_normal(len(s)), -32768, 32767).astype(
            np.int16
        )
        for s in clean
    ]
    found = await asyncio.gather(*[utterances_of(engine, samples) for samples in heard])
    for samples, utterances in zip(clean, found, strict=True):
        for place in loud_places(samples, 20):
            assert any(u.start_sample <= place < u.end_sample for u in utterances)


async def test_pauses_become_endpoints(engine: VadEngine) -> None:
    rng = random.Random(3)
    for voice in VOICES:
        samples = speak("1234", voice, rng, pause_every=1, pause_ms=(1_000, 1_300))
        utterances = await utterances_of(engine, samples)
        assert len(utterances) == 4 and utterances[-1].end_sample == len(samples)


@pytest.mark.parametrize("rms", [0, 5, 100, 1000])
async def test_steady_noise_is_not_speech_after_adaptation(engine: VadEngine, rms: int) -> None:
    noise = np.random.default_rng(2).standard_normal(16_000 * 10) * rms
    utterances = await utterances_of(engine, noise.astype(np.int16))
    assert all(utterance.end_sample < 16_000 for utterance in utterances)


async def test_grouping_of_a_stream_into_calls_makes_no_difference(
    engine: VadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vad, "TURN_EVERY_S", 0)
    pcm = whole_frames(speak("907", "en_slt", random.Random(1)))
    at_once = await engine.probabilities(VadStream(), pcm)
    stream = VadStream()
    one_by_one: list[float] = []
    for place in range(0, len(pcm), FRAME_BYTES):
        one_by_one += await engine.probabilities(stream, pcm[place : place + FRAME_BYTES])
    assert one_by_one == pytest.approx(at_once, abs=1e-4)
    assert await engine.probabilities(stream, b"") == []


async def test_company_in_the_batch_makes_no_difference(engine: VadEngine) -> None:
    rng = random.Random(5)
    recordings = [
        whole_frames(speak(random_digits(rng, n), voice, rng))
        for voice in VOICES
        for n in (1, 3, 6)
    ]
    alone = [await engine.probabilities(VadStream(), pcm) for pcm in recordings]
    together = await asyncio.gather(*[engine.probabilities(VadStream(), pcm) for pcm in recordings])
    for one, other in zip(alone, together, strict=True):
        assert other == pytest.approx(one, abs=1e-4)


async def test_a_long_request_takes_turns_with_others(
    engine: VadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pcm = whole_frames(speak("31415926", "zh_lan", random.Random(1)))
    expected = await engine.probabilities(VadStream(), pcm)
    monkeypatch.setattr(vad, "REQUEST_FRAMES_MAX", 7)
    long = asyncio.create_task(engine.probabilities(VadStream(), pcm))
    short = asyncio.create_task(engine.probabilities(VadStream(), pcm[: 3 * FRAME_BYTES]))
    done, _ = await asyncio.wait([long, short], return_when=asyncio.FIRST_COMPLETED)
    assert done == {short}
    assert await short == pytest.approx(expected[:3], abs=1e-4)
    assert await long == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("requests", "each"),
    [(1, vad.REQUEST_FRAMES_MAX), (2, vad.REQUEST_FRAMES_MAX), (64, 16), (500, 8)],
)
async def test_a_turn_takes_the_same_of_all_and_no_more_than_it_holds(
    requests: int, each: int
) -> None:
    engine = VadEngine()
    pcm = bytes(FRAME_BYTES * 100)
    future = asyncio.get_running_loop().create_future()
    engine._waiting.extend(vad._Request(VadStream(), pcm, future) for _ in range(requests))
    batch, frames = engine._next_batch()
    assert frames == [each] * len(batch)
    assert sum(frames) <= vad.TURN_FRAMES_MAX
    assert len(batch) == min(requests, vad.TURN_FRAMES_MAX // each)


async def test_the_event_loop_continues_during_a_turn(
    engine: VadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = engine._network
    assert network is not None
    run, went_on = network.run, threading.Event()

    def run_once_the_loop_went_on(*arguments: Any) -> Any:
        assert went_on.wait(10), "the event loop waited for the model"
        return run(*arguments)

    monkeypatch.setattr(network, "run", run_once_the_loop_went_on)
    frames = vad.ALONE_FRAMES_MAX + 1
    asked = asyncio.create_task(engine.probabilities(VadStream(), bytes(frames * FRAME_BYTES)))
    await asyncio.sleep(0.1)
    went_on.set()
    assert len(await asked) == frames


async def test_the_thread_has_the_next_turn_before_the_answers_of_the_last_are_handled(
    engine: VadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = engine._network
    assert network is not None
    run, runs, second = network.run, itertools.count(1), threading.Event()
    had_it: list[bool] = []

    def run_counted(*arguments: Any) -> Any:
        if next(runs) == 2:
            second.set()
        return run(*arguments)

    async def ask() -> None:
        await engine.probabilities(VadStream(), bytes(vad.REQUEST_FRAMES_MIN * FRAME_BYTES))
        if not had_it:
            had_it.append(second.wait(60))

    monkeypatch.setattr(network, "run", run_counted)
    monkeypatch.setattr(vad, "ALONE_FRAMES_MAX", 0)
    in_a_turn = vad.TURN_FRAMES_MAX // vad.REQUEST_FRAMES_MIN
    await asyncio.gather(*[ask() for _ in range(2 * in_a_turn)])
    assert had_it == [True]


async def test_a_short_request_of_a_client_alone_is_answered_at_once(engine: VadEngine) -> None:
    pcm = whole_frames(speak("31415926", "zh_lan", random.Random(1)))
    expected = await engine.probabilities(VadStream(), pcm)
    stream, found = VadStream(), []
    await asyncio.sleep(2 * vad.TURN_EVERY_S)
    for place in range(0, len(pcm), 6 * FRAME_BYTES):
        answering = engine.probabilities(stream, pcm[place : place + 6 * FRAME_BYTES])
        with pytest.raises(StopIteration) as answered:
            answering.send(None)
        found += answered.value.value
    assert found == pytest.approx(expected, abs=1e-4)
    assert engine.processed_s == pytest.approx(2 * len(pcm) / 32_000)


async def test_clients_that_speak_together_share_turns(
    engine: VadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vad, "TURN_EVERY_S", 5.0)  # They are together on a busy machine, too.
    streams = [VadStream() for _ in range(3)]
    for stream in streams:
        assert len(await engine.probabilities(stream, bytes(FRAME_BYTES))) == 1
    answering = [engine.probabilities(stream, bytes(FRAME_BYTES)) for stream in streams]
    tasks = [asyncio.create_task(each) for each in answering]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    assert [len(each) for each in await asyncio.gather(*tasks)] == [1, 1, 1]


async def test_too_many_waiting_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = VadEngine()
    engine.start()
    try:
        monkeypatch.setattr(vad, "REQUESTS_MAX", 0)
        with pytest.raises(VadOverloadedError):
            await engine.probabilities(VadStream(), bytes(FRAME_BYTES * 99))
    finally:
        engine.close()


async def test_a_cancelled_caller_does_not_disturb_the_others(engine: VadEngine) -> None:
    pcm = bytes(FRAME_BYTES * 300)
    tasks = [asyncio.create_task(engine.probabilities(VadStream(), pcm)) for _ in range(9)]
    await asyncio.sleep(0)  # lets every task put its request
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    assert all(isinstance(outcome, list) and len(outcome) == 300 for outcome in outcomes[1::2])


async def test_closing_answers_whoever_waits() -> None:
    engine = VadEngine()
    engine.start()
    pcm = bytes(FRAME_BYTES * 2_000)
    tasks = [asyncio.create_task(engine.probabilities(VadStream(), pcm)) for _ in range(4)]
    await asyncio.sleep(0)  # lets every task put its request
    engine.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, VadClosedError) for outcome in outcomes)
    with pytest.raises(VadClosedError):
        await engine.probabilities(VadStream(), pcm)
    engine.close()


async def test_a_failed_batch_fails_only_its_own_requests(
    engine: VadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(engine._network, "run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await engine.probabilities(VadStream(), bytes(FRAME_BYTES))
    assert len(await engine.probabilities(VadStream(), bytes(FRAME_BYTES))) == 1
