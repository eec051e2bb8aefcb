"""Partial results of a streaming model, final ones of another, through every real process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from typing import TypeAlias

import psutil
import pytest

from asr_client import FinalResult, PartialResult
from tests.asr_worker.recognizer import tiny_streaming
from tests.conftest import EmbeddedServices
from tests.integration.admitted import open_session
from tests.integration.dialect_clients import funasr, funasr_start
from tests.integration.speech import PARTIALS_TRIES, Spoken, slices, spoken
from tools.lab.harness import database
from tools.lab.harness.stack import Stack, running_stack
from tools.lab.random_paraformer import TINY

PACE_S = 0.06 / 4
"""Four times as fast as speech, in frames of 60 ms."""
FRAME_BYTES = 1_920


@pytest.fixture(scope="module")
def streaming_stack(
    embedded_services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    online = tiny_streaming.build(tmp_path_factory.mktemp("models") / "streaming")
    url = database.create(embedded_services.database_url, "streaming")
    with running_stack(
        url, embedded_services.redis_url, ASR_MODEL="demo", ASR_ONLINE_MODEL=str(online)
    ) as running:
        running.start_all(workers=2)
        yield running


Heard: TypeAlias = tuple[list[PartialResult], str]
"""Partial results and the final text of a session."""


async def partials_and_final(stack: Stack, audio: Spoken) -> Heard:
    async with open_session(stack.url(), partials=True) as session:

        async def send() -> None:
            for frame in slices(audio.pcm.tobytes(), FRAME_BYTES):
                await session.send(frame)
                await asyncio.sleep(PACE_S)
            await session.finish()

        sending = asyncio.create_task(send())
        events = [event async for event in session.events()]
        await sending
    assert isinstance(events[-1], FinalResult)
    return [e for e in events if isinstance(e, PartialResult)], events[-1].text


def streamed(partials: list[PartialResult]) -> bool:
    """Whether there are several of a segment. The texts are the streaming model's, and each begins
    with the one before."""
    texts: dict[int, list[str]] = {}
    for partial in partials:
        texts.setdefault(partial.segment_index, []).append(partial.text)
    for of_segment in texts.values():
        for shorter, longer in pairwise(of_segment):
            assert longer.startswith(shorter)
    assert set("".join(partial.text for partial in partials)) <= set(TINY.tokens)
    return len(partials) > len(texts) and any(partial.text for partial in partials)


async def try_until_streamed(
    said: list[Spoken], attempt: Callable[[list[Spoken]], Awaitable[list[Heard]]]
) -> None:
    """The final texts are right in each attempt. Partial results may be too late on a busy machine,
    so that one attempt with those of all sessions is enough."""
    for _ in range(PARTIALS_TRIES):
        found = await attempt(said)
        assert [text for _, text in found] == [audio.text for audio in said]
        are_streamed = {streamed(partials) for partials, _ in found}
        if are_streamed == {True}:
            break
    assert are_streamed == {True}


async def test_partial_results_grow_and_final_ones_are_of_the_other_model(
    streaming_stack: Stack,
) -> None:
    async def attempt(said: list[Spoken]) -> list[Heard]:
        return await asyncio.gather(*(partials_and_final(streaming_stack, each) for each in said))

    said = [spoken(3_000 + number, digits=(10, 12)) for number in range(6)]
    await try_until_streamed(said, attempt)


async def test_funasr_in_two_passes(streaming_stack: Stack) -> None:
    audio = spoken(3_100, digits=(12, 12), voice="zh_mei")
    url = f"ws://127.0.0.1:{streaming_stack.ports['gateway']}"
    view = await funasr(url, audio.pcm.tobytes(), funasr_start("2pass"), pace_s=PACE_S)
    assert view.text == audio.text
    online = [reply["text"] for reply in view.replies if reply["mode"] == "2pass-online"]
    assert set("".join(online)) <= set(TINY.tokens)
    assert set("".join(online)) - set(audio.text), "the streaming model knows no digits"


async def test_streams_of_a_lost_worker_continue_on_another(streaming_stack: Stack) -> None:
    supervisor = psutil.Process(streaming_stack.processes["asr_worker"].pid)

    async def attempt(said: list[Spoken]) -> list[Heard]:
        await asyncio.to_thread(streaming_stack.wait_ready, workers=2)
        streams = [asyncio.create_task(partials_and_final(streaming_stack, each)) for each in said]
        await asyncio.sleep(1.0)
        os.kill(supervisor.children()[0].pid, signal.SIGKILL)
        return await asyncio.gather(*streams)

    said = [spoken(3_200 + number, digits=(12, 12)) for number in range(4)]
    await try_until_streamed(said, attempt)
