"""Clients that speak, lose their connections and resume, with the real ``asr_client.protocol``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import asr_client as c
from asr_client.protocol import (
    RESUMABLE_CLOSE_CODES,
    ClientProtocol,
    ReplayBuffer,
    start_fields,
)
from gateway.audio.timeline import AudioDecoded
from gateway.session.endpointer import EndpointerConfig
from gateway.session.limits import SessionLimits
from gateway.session.segmenter import Segmenter
from gateway.session.speakers import NEW_SPEAKER_MS_MIN, Speakers
from tests.simulation.client_socket import SimSocket
from tests.simulation.gateway_process import FRAME_BYTES, GatewayProcess
from tests.simulation.options import Options
from tests.simulation.oracle import InvariantError, Seen
from tests.simulation.speech import (
    POISON,
    embedding_of_voice,
    text_of,
    voice_of,
    without_accent,
)
from tests.simulation.world import World

HANG_UP_S = 0.5
"""From the final result to the end of the connection."""
NORMAL_CLOSURE = 1000
RETRY_S_MIN = 0.1
RETRY_S_MAX = 1.0
TRY_LATER = 1013
ANSWER_S = 8.0
"""After this time without an answer to its start a client tries another gateway."""
FAILURES = ("chunk_failed",)
MODEL_REFUSED = ("no_broker", "no_worker")
"""Answers to a start whose model has no room, on a connection that was admitted without it."""
BYTES_PER_MS = 32
SPEAKER_SIMILARITY_MIN = 0.4
LONGER = 4
"""Utterances are this much longer if speakers are told: a short one opens no speaker."""


@dataclass(frozen=True, slots=True)
class Said:
    """A segment of a run without faults."""

    start_ms: int
    end_ms: int
    text: str
    voice: int


class Speech:
    """The audio of a client, and its segments and texts in a run without faults."""

    def __init__(self, rng: Random, name: str, options: Options) -> None:
        frames = [bytes(FRAME_BYTES)] * rng.randint(1, 12)
        for utterance in range(rng.randint(1, options.segments_max)):
            poison = rng.random() < options.poison
            length = rng.randint(6, 25) * (LONGER if options.speakers else 1)
            for frame in range(length):
                label = f"{name}|{utterance}|{frame}|".encode()
                label += POISON if poison and frame == 3 else b""
                frames.append(label.ljust(FRAME_BYTES, b"\0"))
            frames += [bytes(FRAME_BYTES)] * rng.randint(8, 25)
        # Recordings may end within a frame.
        audio = b"".join(frames)[: len(frames) * FRAME_BYTES - 2 * rng.randint(0, 600)]
        step = options.chunk_ms * BYTES_PER_MS
        self.chunks = [audio[i : i + step] for i in range(0, len(audio), step)]
        self.segments = _cut(audio)


def _cut(audio: bytes) -> list[Said]:
    limits = SessionLimits(
        segment_deadline_ms=60_000,
        resume_wait_s=60.0,
        speaker_similarity_min=SPEAKER_SIMILARITY_MIN,
    )
    segmenter = Segmenter("auto", EndpointerConfig(endpoint_silence_ms=200), limits)
    decoded = AudioDecoded(tail=b"", pcm=audio, starts_container=False, ends_container=False)
    segmenter.append(0, decoded)
    cut = segmenter.take(_probabilities(segmenter.take_frames()), 0.0)
    segmenter.finish(b"")
    cut += segmenter.take(_probabilities(segmenter.take_frames()), 0.0)
    return [Said(u.start_ms, u.end_ms, text_of(u.pcm), voice_of(u.pcm)) for u in cut]


def _probabilities(pcm: bytes) -> list[float]:
    return [1.0 if pcm[i] else 0.0 for i in range(0, len(pcm), FRAME_BYTES)]


class SimClient:
    """One session over any number of connections, and the checks of what it receives."""

    def __init__(
        self,
        world: World,
        name: str,
        pick: Callable[[], GatewayProcess],
        check_stored: Callable[[SimClient], None],
        *,
        said_all: Callable[[SimClient], None],
        seen: Seen,
        model: str | None,
    ) -> None:
        self._seen = seen
        self._check_stored = check_stored
        self._said_all = said_all
        self.model = model
        self.speech = Speech(world.rng, name, world.options)
        self.left = False
        self.final: c.FinalResult | None = None
        self.received: list[str | None] = []
        """Texts in order; None: a failed segment."""
        self.session_ids: list[str] = []
        """The last is the current one. Earlier ones are sessions whose start was never answered."""
        self.socket: SimSocket | None = None
        self.gateway: GatewayProcess | None = None
        """The last one that it connected to."""
        self.gateways: list[GatewayProcess] = []
        """All that it connected to."""
        self.served_by = (b"", 0)
        """The last gateway that answered its start, and the generation of the session there."""
        self._world = world
        self.name = name
        self._pick = pick
        self._chunks = ReplayBuffer()
        self._begin_session()
        world.after(world.rng.uniform(0.0, 1.0), self._dial)
        world.after(world.rng.uniform(0.0, 1.0), self._speak)

    @property
    def session_id(self) -> str:
        return self.session_ids[-1]

    @property
    def over(self) -> bool:
        return self.left or (self.final is not None and self.socket is None)

    @property
    def utterances_acknowledged(self) -> int:
        """Number of utterances in the audio that was acknowledged."""
        acknowledged = self.speech.chunks[: self.core.acknowledged_chunks]
        return len(_cut(b"".join(acknowledged))) if acknowledged else 0

    def _begin_session(self) -> None:
        self.session_ids.append(f"{self.name}-{len(self.session_ids)}")
        start = start_fields(
            self.session_id,
            partials=self._world.options.partials,
            speakers=self._world.options.speakers,
            model=self.model,
        )
        self.core = ClientProtocol(start, self._chunks, binary=self._world.options.binary)
        if len(self._chunks) == len(self.speech.chunks):
            self.core.finish()

    def _speak(self) -> None:
        if len(self._chunks) < len(self.speech.chunks):
            self._chunks.append(self.speech.chunks[len(self._chunks)])
            self._world.after(
                self._world.options.chunk_ms / 1000 / self._world.options.speed, self._speak
            )
        else:
            self.core.finish()
            self._said_all(self)
        self._pump()

    def _pump(self) -> None:
        while self.socket is not None and (message := self.core.next_message()) is not None:
            self.socket.send(message)

    # --------------------------------------------------------------------------------- connections

    def _dial(self) -> None:
        if self.left or self.final is not None or self.socket is not None:
            return
        self.gateway = gateway = self._pick()
        self.gateways.append(gateway)
        self._started = False
        self.socket = socket = SimSocket(self._world, gateway.loop, self)
        delay_s = self._world.rng.uniform(0.001, 0.02)
        self._world.after(delay_s, lambda: gateway.serve(socket))
        self._world.after(ANSWER_S, lambda: self._give_up(socket))

    def _give_up(self, socket: SimSocket) -> None:
        if socket is self.socket and not self._started:
            self.drop(noticed_s=0.1)

    def opened(self, socket: SimSocket) -> None:
        if socket is self.socket:
            socket.send(self.core.start_message())

    def refused(self, socket: SimSocket) -> None:
        self.closed(socket, TRY_LATER)

    def closed(self, socket: SimSocket, code: int) -> None:
        if socket is not self.socket:
            return
        if self.final is None and code not in RESUMABLE_CLOSE_CODES:
            self._world.note("client gives up", (self.name, code))
            return
        socket.leave(0.0)
        self._lost()

    def drop(self, noticed_s: float) -> None:
        """Lose the connection. The gateway notices after ``noticed_s``."""
        if self.socket is not None and self.final is None:
            self._world.note("client is cut off", (self.name, noticed_s))
            self.socket.leave(noticed_s)
            self._lost()

    def _lost(self) -> None:
        self.socket = None
        self.core.connection_lost()
        if self.core.resume_token is None:
            # The start may have arrived, and its session id may be in use.
            self._begin_session()
        self._world.after(self._world.rng.uniform(RETRY_S_MIN, RETRY_S_MAX), self._dial)

    def leave(self) -> None:
        """Disconnect and never resume."""
        self._world.note("client leaves", self.name)
        self.drop(noticed_s=0.05)
        self.left = self.final is None

    # ------------------------------------------------------------------------------------ messages

    def receive(self, socket: SimSocket, message: str) -> None:
        if socket is not self.socket:
            return
        self._world.note(f"{self.name} receives", message)
        if self.final is not None:
            raise InvariantError(2, f"{self.name}: {message} after the final result")
        before = self.core.received_segments
        try:
            event = self.core.receive(message)
        except c.SessionError as error:
            raise InvariantError(2, f"{self.name}: {error}") from error
        if self.core.repeated_segments:
            raise InvariantError(2, f"{self.name} receives a segment again: {message}")
        match event:
            case c.Started():
                self._begun(event)
            case c.Segment():
                self._check_text(event)
                self.received.append(event.text)
            case c.PartialResult():
                if (self.session_id, without_accent(event.text)) not in self._seen.partials:
                    raise InvariantError(2, f"{self.name} never said {event}")
            case c.Problem():
                self._take_problem(event, is_segment=self.core.received_segments > before)
            case c.FinalResult():
                self._check_final(event)
        self._pump()

    def _begun(self, event: c.Started) -> None:
        self._started = True
        assert self.gateway is not None
        self.served_by = (self.gateway.identity, self.gateway.generation_of(event.session_id))
        if self.model is not None and event.model != self.model:
            raise InvariantError(2, f"{self.name} asked for {self.model} and gets {event.model}")
        if event.session_id != self.session_id:
            raise InvariantError(2, f"{self.name} receives session {event.session_id}")
        if not 0 <= event.next_chunk_index <= len(self._chunks):
            raise InvariantError(2, f"{self.name} is asked for chunk {event.next_chunk_index}")

    def _check_text(self, event: c.Segment) -> None:
        if event.segment_index >= len(self.speech.segments):
            raise InvariantError(2, f"{self.name} never said {event}")
        said = self.speech.segments[event.segment_index]
        heard = (event.start_ms, event.end_ms, without_accent(event.text))
        if heard != (said.start_ms, said.end_ms, said.text):
            raise InvariantError(2, f"{self.name} receives {event} and said {said}")

    def _take_problem(self, problem: c.Problem, *, is_segment: bool) -> None:
        if problem.code == "resume_unavailable" and not self._started:
            assert self.socket is not None
            self.closed(self.socket, TRY_LATER)
        elif problem.code in MODEL_REFUSED and not self._started:
            return  # The gateway closes the connection with TRY_LATER.
        elif problem.segment_index is not None and problem.code in FAILURES:
            keys = {(session_id, problem.segment_index) for session_id in self.session_ids}
            if not keys & self._seen.failed:
                raise InvariantError(8, f"{self.name} receives {problem}, but no segment failed")
            if is_segment:
                self.received.append(None)
        else:
            raise InvariantError(2, f"{self.name} receives {problem}")

    def _check_final(self, final: c.FinalResult) -> None:
        self.final = final
        said = [segment.text for segment in self.speech.segments]
        if len(self.received) != len(said):
            raise InvariantError(2, f"{self.name}: {len(self.received)} of {len(said)} segments")
        if final.chunk_count != len(self.speech.chunks):
            raise InvariantError(2, f"{self.name}: {final}, {len(self.speech.chunks)} chunks")
        heard = without_accent(final.text).split()
        if final.stored:
            self._check_stored(self)
        ids = set(self.session_ids)
        failed = {seq for session_id, seq in self._seen.failed if session_id in ids}
        if self._world.options.speakers:
            certain = not failed and len(set(self.gateways)) == 1
            self._check_speakers(final.speakers, certain=certain)
        if not _continues(self.received, said, heard, failed):
            raise InvariantError(2, f"{self.name} receives {final} after {self.received}")
        # The connection is open for another session; until then nothing more may come.
        socket = self.socket
        assert socket is not None
        self._world.after(HANG_UP_S, lambda: self.closed(socket, NORMAL_CLOSURE))

    def _check_speakers(self, labels: tuple[int | None, ...], *, certain: bool) -> None:
        """At one gateway, and if no segment failed, labels are those of a run without faults.
        Otherwise no label stands for two voices. Labels may be missing, and a voice may have a
        further one: a gateway was killed, or the next one resumed, before labels were stored. Short
        utterances are left out: each has the label of a longer one.
        """
        said = self.speech.segments
        if len(labels) != len(said) or (certain and labels != _labels(said)):
            raise InvariantError(2, f"{self.name} receives speakers {labels} of {said}")
        voices: dict[int, int] = {}
        for segment, label in zip(said, labels, strict=True):
            short = segment.end_ms - segment.start_ms < NEW_SPEAKER_MS_MIN
            if short or label is None:
                continue
            if voices.setdefault(label, segment.voice) != segment.voice:
                raise InvariantError(2, f"{self.name}: label {label} of two voices: {labels}")


def _labels(said: list[Said]) -> tuple[int | None, ...]:
    speakers = Speakers(SPEAKER_SIMILARITY_MIN)
    for segment in said:
        speakers.add(embedding_of_voice(segment.voice), segment.end_ms - segment.start_ms)
    speakers.recluster()
    return tuple(speakers.labels)


def _continues(
    received: list[str | None], said: list[str], final: list[str], failed: set[int]
) -> bool:
    """Whether the final text matches the texts received before. Segments that a killed gateway had
    not stored were recognised again: a failed segment may have a text in the final result, and the
    other way round."""
    left = list(final)
    for place, (text, word) in enumerate(zip(received, said, strict=True)):
        if left[:1] == [word]:
            del left[0]
        elif text is not None and place not in failed:
            return False
    return not left
