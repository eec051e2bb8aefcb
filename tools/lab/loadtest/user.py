"""One virtual user: sends speech in real time over a ``Wire``, retries, resumes, and checks every
word.

``driver.Driver`` calls ``turn`` at the times that the user requests.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from websockets.uri import parse_uri

import asr_client as cs
from asr_client.client import START_TIMEOUT_S
from asr_client.events import Acknowledged
from asr_client.protocol import (
    RESUMABLE_CLOSE_CODES,
    RESUME_UNAVAILABLE,
    ClientProtocol,
    Mode,
    start_fields,
)
from gateway.session.transcript import join_texts
from runtime.backoff import Backoff
from tools.lab.loadtest.speech import Speech
from tools.lab.loadtest.wire import Wire

Status = Literal["succeeded", "wrong_text", "failed", "refused"]

BACKOFF_INITIAL_S = 0.5
BACKOFF_MAX_S = 5.0
UNACKNOWLEDGED_CHUNKS_MAX = 64


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Options that all users of a run share."""

    url: str
    mode: Mode
    binary: bool
    partials: bool
    resume: bool
    speed: float
    patience_s: float
    """Time for which a refused user retries."""
    final_timeout_s: float
    """Deadline from finish to the final result, and from a lost connection to its resumption."""
    token: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Outcome:
    """Outcome of one session. Latencies are pairs of (seconds since the run began, ms)."""

    session_id: str
    expected: str
    text: str = ""
    status: Status = "failed"
    reason: str = ""
    refusals: int = 0
    resumes: int = 0
    stored: bool = False
    audio_s: float = 0.0
    spoken_in_s: float = 0.0
    """Duration of the audio at the session's speed."""
    began_s: float = 0.0
    """When it first tried to connect."""
    came_in_s: float | None = None
    """When it was admitted; None: never."""
    ended_s: float = 0.0
    refused_after_ms: list[float] = field(default_factory=list)
    ack_ms: list[tuple[float, float]] = field(default_factory=list)
    segment_ms: list[tuple[float, float]] = field(default_factory=list)
    final_ms: float | None = None
    partials: int = 0
    first_partial_ms: float = math.inf
    """From the beginning of the audio to the first partial result; infinite without one."""
    problems: list[str] = field(default_factory=list)


class _Due:
    """The chunks spoken so far, as the ``Chunks`` of a ``ClientProtocol``."""

    def __init__(self, speech: Speech) -> None:
        self.speech = speech
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> bytes:
        return self.speech.chunk(index)


class User:
    """Call ``begin``, then ``turn`` at each time given to ``wake``. ``ended`` is called once."""

    def __init__(
        self,
        session_id: str,
        speech: Speech,
        behaviour: Behaviour,
        *,
        run_began_s: float,
        wake: Callable[[User, float], None],
        ended: Callable[[User], None],
    ) -> None:
        audio_s = speech.duration_ms / 1000
        self.outcome = Outcome(
            session_id, speech.text, audio_s=audio_s, spoken_in_s=audio_s / behaviour.speed
        )
        self.active = False
        self._behaviour = behaviour
        self._speech = speech
        self._due = _Due(speech)
        fields = start_fields(
            session_id, user_id="loadtest", mode=behaviour.mode, partials=behaviour.partials
        )
        self._core = ClientProtocol(fields, self._due, binary=behaviour.binary)
        self._wake = wake
        self._ended = ended
        self._run_began_s = run_began_s
        self._backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S, random.Random(session_id))
        self._wire: Wire | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._dialled_s = 0.0
        self._speaking_since_s: float | None = None
        self._first_try_s = 0.0
        self._finished_s: float | None = None
        self._dial_at_s: float | None = None
        self._give_up_s = self._start_by_s = 0.0
        self._chunk_sent_s: dict[int, float] = {}
        self._received: list[str] = []
        self._over = False

    # --------------------------------------------------------------------------------- connecting

    def begin(self) -> None:
        self._first_try_s = time.monotonic()
        self.outcome.began_s = self._first_try_s - self._run_began_s
        self._give_up_s = self._first_try_s + self._behaviour.patience_s
        self._dial()

    def _dial(self) -> None:
        self._dial_at_s = None
        self._dialled_s = time.monotonic()
        self._start_by_s = max(self._give_up_s, self._dialled_s + START_TIMEOUT_S)
        self._wake(self, self._start_by_s)
        address = self._core.url(self._behaviour.url)
        self._wire = Wire(address, self, self._behaviour.token)
        self._dialling = asyncio.get_running_loop().create_task(self._connect(self._wire))

    async def _connect(self, wire: Wire) -> None:
        uri = parse_uri(self._behaviour.url)
        try:
            await asyncio.get_running_loop().create_connection(lambda: wire, uri.host, uri.port)
        except OSError:
            self.lost(1006)

    def _dial_later(self, delay_s: float, why: str, status: Status = "failed") -> None:
        """Try again, or end with ``status`` when the time for it is over."""
        now_s = time.monotonic()
        if now_s + delay_s > self._give_up_s:
            self._end(status, why)
            return
        self._dial_at_s = now_s + delay_s
        self._wake(self, self._dial_at_s)

    def opened(self) -> None:
        assert self._wire is not None
        self._wire.send(self._core.start_message())

    def refused(self, status: int, retry_after_s: float | None) -> None:
        self.outcome.refusals += 1
        self.outcome.refused_after_ms.append((time.monotonic() - self._dialled_s) * 1000)
        if status != 503:
            self._end("failed", f"HTTP {status}")
            return
        delay_s = self._backoff.next_delay_s() + (retry_after_s or 0.0)
        # An admitted session that cannot resume has failed; it was not refused.
        admitted = self._core.resume_token is not None
        self._dial_later(delay_s, "HTTP 503", "failed" if admitted else "refused")

    def lost(self, code: int) -> None:
        if self._over:
            return
        self._core.connection_lost()
        self._wire = None
        if self._core.resume_token is None:
            self._dial_later(self._backoff.next_delay_s(), f"not connected (code {code})")
        elif self._behaviour.resume and code in RESUMABLE_CLOSE_CODES:
            if self._dial_at_s is None:
                self._begin_to_resume()
            self._dial_later(self._backoff.next_delay_s(), f"not resumed (code {code})")
        else:
            self._end("failed", f"connection lost (code {code})")

    def _begin_to_resume(self) -> None:
        if self.active:
            self.active = False
            self.outcome.resumes += 1
            self._give_up_s = time.monotonic() + self._behaviour.final_timeout_s

    # ------------------------------------------------------------------------------------ speaking

    def turn(self, now_s: float) -> None:
        """Do what is due at ``now_s``."""
        if self._over:
            return
        if self._dial_at_s is not None:
            if now_s >= self._dial_at_s:
                self._dial()
            return
        if not self.active and now_s >= self._start_by_s:
            self._end("failed", "the server did not start the session in time")
        elif self._finished_s is not None and now_s >= self._give_up_s:
            self._end("failed", "no final result in time")
        elif self._speaking_since_s is not None and not self._core.finishing:
            self._speak(now_s)

    def _speak(self, now_s: float) -> None:
        assert self._speaking_since_s is not None
        speed = self._behaviour.speed
        while self._due.count < self._speech.chunk_count:
            due_s = self._speaking_since_s + self._speech.due_ms(self._due.count) / 1000 / speed
            if due_s > now_s:
                self._pump()
                self._wake(self, due_s)
                return
            self._due.count += 1
        self._core.finish()
        self._give_up_s = now_s + self._behaviour.final_timeout_s
        self._wake(self, self._give_up_s)
        self._pump()

    def writable(self) -> None:
        self._pump()

    def _pump(self) -> None:
        wire = self._wire
        while (
            wire is not None
            and not wire.paused
            and self._core.unacknowledged_chunks < UNACKNOWLEDGED_CHUNKS_MAX
        ):
            index = self._core.sent_chunks
            message = self._core.next_message()
            if message is None:
                return
            now_s = time.monotonic()
            if self._core.sent_chunks > index:
                self._chunk_sent_s[index] = now_s
            else:
                self._finished_s = now_s
            wire.send(message)

    # ----------------------------------------------------------------------------------- receiving

    def arrived(self, message: str) -> None:
        if self._over:
            return
        try:
            event = self._core.receive(message)
        except cs.SessionError as error:
            self._end("failed", str(error))
            return
        now_s = time.monotonic()
        match event:
            case cs.Started():
                self._started(now_s)
            case Acknowledged():
                self._note_ack(event.chunk_index, now_s)
                self._pump()
            case cs.Segment():
                self._note_segment(event, now_s)
            case cs.PartialResult():
                self._note_partial(now_s)
            case cs.Problem():
                self._note_problem(event)
            case cs.FinalResult():
                self._conclude(event, now_s)

    def _started(self, now_s: float) -> None:
        self.active = True
        self._backoff.reset()
        if self._speaking_since_s is None:
            self._speaking_since_s = now_s
            self.outcome.came_in_s = now_s - self._run_began_s
        if self._core.finishing:
            self._give_up_s = now_s + self._behaviour.final_timeout_s
            self._wake(self, self._give_up_s)
            self._pump()
        else:
            self._speak(now_s)

    def _note_ack(self, chunk_index: int, now_s: float) -> None:
        sent_s = self._chunk_sent_s.get(chunk_index)
        if sent_s is not None:
            self.outcome.ack_ms.append((now_s - self._run_began_s, (now_s - sent_s) * 1000))
        for index in [i for i in self._chunk_sent_s if i <= chunk_index]:
            del self._chunk_sent_s[index]

    def _note_segment(self, event: cs.Segment, now_s: float) -> None:
        self._received.append(event.text)
        spoken_ms = self._speech.spoken_until_ms(event.end_ms)
        if spoken_ms is None or self._speaking_since_s is None:
            return
        spoken_s = self._speaking_since_s + spoken_ms / 1000 / self._behaviour.speed
        self.outcome.segment_ms.append((now_s - self._run_began_s, (now_s - spoken_s) * 1000))

    def _note_partial(self, now_s: float) -> None:
        assert self._speaking_since_s is not None
        self.outcome.partials += 1
        waited_ms = (now_s - self._speaking_since_s) * 1000
        self.outcome.first_partial_ms = min(self.outcome.first_partial_ms, waited_ms)

    def _note_problem(self, event: cs.Problem) -> None:
        if self._core.resume_token is not None and event.code == RESUME_UNAVAILABLE:
            assert self._wire is not None
            self._wire.close()
            self.lost(1013)
            return
        self.outcome.problems.append(event.code)
        if not self.active:
            self._end("failed", f"{event.code}: {event.message}")

    def _conclude(self, event: cs.FinalResult, now_s: float) -> None:
        self.outcome.text = event.text
        self.outcome.stored = event.stored
        if self._finished_s is not None:
            self.outcome.final_ms = (now_s - self._finished_s) * 1000
        if event.text != self._speech.text:
            self._end("wrong_text", "the text differs")
        elif self._core.repeated_segments:
            self._end("failed", f"{self._core.repeated_segments} segments were sent twice")
        elif (received := join_texts(self._received)) != self._speech.text:
            self._end("wrong_text", f"the segments' texts differ: {received}")
        else:
            self._end("succeeded", "")

    def _end(self, status: Status, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self.active = False
        self.outcome.status = status
        self.outcome.reason = reason
        self.outcome.ended_s = time.monotonic() - self._run_began_s
        if self._wire is not None:
            self._wire.close()
        self._ended(self)

    def give_up(self, reason: str) -> None:
        """End the session now, as a failure."""
        self._end("failed", reason)
