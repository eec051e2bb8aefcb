"""The path of a chunk, and what happens when it is interrupted."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import structlog

from gateway.audio.formats import AudioError
from gateway.audio.timeline import AudioDecoded, Notice
from gateway.audio.vad import VadOverloadedError
from gateway.dialects.native import Native
from gateway.session import events as e
from gateway.session.core import Session
from gateway.session.limits import FileTraits, Traits
from gateway.session.runner import Services, SessionRunner
from gateway.session.states import State
from gateway.storage.callers import NOBODY, Caller
from tests.gateway.session_driver import ENDPOINTER, LIMITS, detect, result_of, silence, speech
from wire.messages import Cancel, Job, Record, Result

UTTERANCE = speech(500) + silence(1000)


class Audio:
    """Decodes raw PCM. The decoder waits while ``gate`` is not set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = 0
        self.closed = 0
        self.rest = [AudioDecoded(tail=b"")]
        """Parts of the audio that the decoder gives in the end."""

    async def feed(
        self, data: bytes, *, whole: bool, continues: bool, more: bool, ends: bool
    ) -> AudioDecoded:
        self.entered += 1
        await self.gate.wait()
        if data == b"noise":
            raise AudioError("bad_audio", "no audio")
        return AudioDecoded(pcm=data, more=more)

    async def finish(self) -> AudioDecoded:
        return self.rest.pop(0)

    async def close(self) -> None:
        self.closed += 1


class Gateway:
    """Services that record jobs, with speech detection by level."""

    def __init__(self) -> None:
        self.vad = self
        self.audio = Audio()
        self.jobs: list[Job] = []
        self.records: list[Record] = []
        self.released = 0
        self.overloaded = 0
        self.audio_s = 0.0
        self.refused: e.AudioRefused | None = None

    async def probabilities(self, _stream: object, pcm: bytes) -> list[float]:
        if self.overloaded:
            self.overloaded -= 1
            raise VadOverloadedError
        await asyncio.sleep(0)
        return list(detect(pcm))

    def send(self, message: Job | Cancel) -> None:
        if isinstance(message, Job):
            self.jobs.append(message)

    def submit_record(self, record: Record) -> None:
        self.records.append(record)

    def keep_result(self, result: Result, *, contested: bool, waited_s: float) -> None: ...
    def note_audio(self, caller: Caller, audio_s: float) -> None:
        self.audio_s += audio_s

    def refused_audio(self, caller: Caller) -> e.AudioRefused | None:
        return self.refused

    def new_audio(self, start: e.Start, first_sample: int) -> Audio:
        return self.audio

    def session_ended(self, runner: SessionRunner) -> None:
        self.released += 1


class Client:
    """A connection that records its answers."""

    def __init__(self) -> None:
        self.answers: list[e.Answer] = []
        self.code = 0

    def answer(self, answer: e.Answer) -> None:
        self.answers.append(answer)

    def close(self, code: int, reason: str) -> None:
        self.code = code

    displace = close


def started(
    caller: Caller = NOBODY, traits: Traits | None = None, **limits: Any
) -> tuple[SessionRunner, Gateway, Client]:
    gateway, client = Gateway(), Client()
    session = Session(LIMITS, ENDPOINTER, resume_token="t", client="c", wall_offset_ms=0, **limits)
    runner = SessionRunner(session, cast(Services, gateway), traits or Native(), caller)
    runner.open(client)
    runner.begin(
        e.Start(
            session_id="s",
            user_id="",
            mode="auto",
            sample_rate_hz=16_000,
            language="",
            hotwords=(),
            partials=False,
            resume_token=None,
        )
    )
    return runner, gateway, client


def chunk(data: bytes, index: int | None = None) -> e.Chunk:
    return e.Chunk(data=data, chunk_index=index, session_id=None)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_chunk_becomes_a_job_in_one_call() -> None:
    runner, gateway, client = started()
    await runner.take(client, chunk(UTTERANCE, 0))
    assert [type(answer) for answer in client.answers] == [e.Started, e.ChunkReceived]
    (job,) = gateway.jobs
    assert speech(500) in job.pcm
    await runner.take(client, e.Finish(session_id="s"))
    await settle()
    assert runner.session.state is State.FINISHING and not runner.session.busy


async def test_audio_that_comes_at_the_end_is_taken_in_parts() -> None:
    """As that of a file whose index is at its end."""
    runner, gateway, client = started()
    await runner.take(client, chunk(b"", 0))
    gateway.audio.rest = [
        AudioDecoded(tail=UTTERANCE, more=True),
        AudioDecoded(tail=UTTERANCE, more=True),
        AudioDecoded(tail=speech(500), notices=(Notice("loudest_only", "n"),)),
    ]
    await runner.take(client, e.Finish(session_id="s"))
    await settle()
    assert len(gateway.jobs) == 3 and not gateway.audio.rest
    assert runner.session.duration_ms == 2 * len(UTTERANCE) // 32 + 500
    assert runner.session.state is State.FINISHING and not runner.session.busy


async def test_parts_wait_for_results() -> None:
    runner, gateway, client = started()
    await runner.take(client, chunk(b"", 0))
    many = UTTERANCE * (LIMITS.unanswered_audio_ms_max // 500 + 2)
    gateway.audio.rest = [AudioDecoded(tail=many, more=True), AudioDecoded(tail=b"")]
    await runner.take(client, e.Finish(session_id="s"))
    await settle()
    assert gateway.jobs and not runner.session.wants_audio
    assert len(gateway.audio.rest) == 1
    for job in gateway.jobs:
        runner.handle(result_of(job, "one"))
    await settle()
    assert not gateway.audio.rest


async def test_chunks_of_two_connections_keep_their_order() -> None:
    runner, gateway, client = started()
    gateway.audio.gate.clear()
    first = asyncio.create_task(runner.take(client, chunk(speech(500))))
    await settle()
    second_client = Client()
    runner.attach(second_client, None)
    assert client.code == 1008
    second = asyncio.create_task(runner.take(second_client, chunk(silence(1000))))
    await settle()
    assert gateway.audio.entered == 1
    gateway.audio.gate.set()
    await asyncio.gather(first, second)
    (job,) = gateway.jobs
    assert job.pcm.startswith(speech(500))


async def test_a_chunk_that_waited_on_a_displaced_connection_does_not_count() -> None:
    runner, gateway, client = started()
    gateway.audio.gate.clear()
    first = asyncio.create_task(runner.take(client, chunk(speech(500))))
    waiting = asyncio.create_task(runner.take(client, chunk(speech(500))))
    await settle()
    runner.attach(Client(), None)
    gateway.audio.gate.set()
    await asyncio.gather(first, waiting)
    assert runner.session.chunk_count == 1


async def test_nothing_more_is_taken_while_too_much_audio_awaits_results() -> None:
    runner, gateway, client = started()
    runner.session._jobs.unanswered_audio_ms = LIMITS.unanswered_audio_ms_max + 1
    waiting = asyncio.create_task(runner.take(client, chunk(UTTERANCE)))
    await settle()
    assert runner.session.chunk_count == 0
    runner.session._jobs.unanswered_audio_ms = 0
    runner.feed(e.Tick())
    await waiting
    assert len(gateway.jobs) == 1


async def test_overloaded_speech_detection_is_retried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.session.runner.VAD_RETRY_S", 0.001)
    runner, gateway, client = started()
    gateway.overloaded = 3
    await runner.take(client, chunk(UTTERANCE))
    assert len(gateway.jobs) == 1


async def test_a_client_that_disconnects_while_its_chunk_is_decoded() -> None:
    runner, gateway, client = started()
    gateway.audio.gate.clear()
    taking = asyncio.create_task(runner.take(client, chunk(UTTERANCE)))
    await settle()
    runner.detach(client)
    assert not runner.attached
    gateway.audio.gate.set()
    await taking
    assert len(gateway.jobs) == 1


async def test_a_decoder_is_closed_after_its_last_chunk() -> None:
    runner, gateway, client = started()
    gateway.audio.gate.clear()
    taking = asyncio.create_task(runner.take(client, chunk(UTTERANCE)))
    await settle()
    runner.hand_over()
    assert client.code == 1012 and gateway.released == 1
    await settle()
    assert gateway.audio.closed == 0
    gateway.audio.gate.set()
    await taking
    assert gateway.audio.closed == 1 and gateway.jobs == []


async def test_bad_audio_is_answered() -> None:
    runner, _gateway, client = started()
    await runner.take(client, chunk(b"noise", 0))
    assert isinstance(client.answers[-1], e.Problem)
    assert not runner.session.busy


async def test_an_action_without_a_performer_is_a_bug() -> None:
    runner, _gateway, _client = started()
    with pytest.raises(TypeError, match="no performer for Tick"):
        runner._perform(cast(e.Action, e.Tick()))


async def test_one_line_summarises_a_session() -> None:
    with structlog.testing.capture_logs() as logs:
        runner, _, client = started(caller=Caller(token_name="anna"))
        await runner.take(client, chunk(UTTERANCE, 0))
        runner.detach(client)
        runner.attach(client, None)
        runner.fail()
    (ended,) = [line for line in logs if line["event"] == "session_ended"]
    assert (ended["session_id"], ended["status"]) == ("s", "internal_error")
    assert (ended["token_name"], ended["resumes"], ended["chunks"]) == ("anna", 1, 1)


@pytest.mark.parametrize("resumable", [False, True])
async def test_an_internal_error_is_stored_unless_the_client_can_resume(resumable: bool) -> None:
    runner, gateway, client = started(traits=FileTraits("f", resumable=resumable))
    runner.fail()
    assert client.code == 1011 and gateway.released == 1
    ends = [record.body["status"] for record in gateway.records if "status" in record.body]
    assert ends == ([] if resumable else ["failed"])


async def test_an_error_in_the_record_of_an_internal_error_ends_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner, gateway, _client = started(traits=FileTraits("f"))
    monkeypatch.setattr(runner.session, "_records", None)
    with structlog.testing.capture_logs() as logs:
        runner.fail()
    assert "end_not_recorded" in [line["event"] for line in logs]
    assert runner.session.over and gateway.released == 1


async def test_a_connection_that_fails_to_close_does_not_stop_the_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def close(_code: int, _reason: str) -> None:
        raise ValueError("a fault")

    with structlog.testing.capture_logs() as logs:
        runner, gateway, client = started()
        monkeypatch.setattr(client, "close", close)
        runner.interrupt()
    assert "session_failed" in [line["event"] for line in logs]
    assert runner.session.over and gateway.released == 1


async def test_a_session_without_audio_left_ends_with_an_error_and_its_texts() -> None:
    runner, gateway, client = started()
    await runner.take(client, e.Chunk(data=speech(500), chunk_index=0, session_id="s"))
    assert gateway.audio_s == 0.5
    gateway.refused = e.AudioRefused(code="audio_limit_reached", message="no more today")
    await runner.take(client, e.Chunk(data=speech(500), chunk_index=1, session_id="s"))
    problem = client.answers[-1]
    assert isinstance(problem, e.Problem) and problem.code == "audio_limit_reached"
    assert runner.session.state is State.FINISHING
    async with asyncio.timeout(10):
        while not gateway.jobs:
            await asyncio.sleep(0.01)
    assert gateway.audio_s == 0.5 and runner.session.chunk_count == 1
