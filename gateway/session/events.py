"""What a client session is told (events) and what it asks for (actions), as plain data.

Client events come from a dialect, audio events from decoding and voice activity detection, bus
events from the broker link. Actions are performed by ``gateway.web.websocket``, which decides
nothing.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from wire.messages import Failure, Job, Record, Result, StoredKey, Token

Mode = Literal["auto", "stream", "chunk"]

# ------------------------------------------------------------------------- events: from the client


class Start(Struct, frozen=True, kw_only=True):
    session_id: str
    user_id: str
    mode: Mode
    sample_rate_hz: int
    """Of raw PCM; containers know their own."""
    language: str
    hotwords: tuple[str, ...]
    partials: bool
    resume_token: str | None
    """Given: go on with a session that this token was issued for."""
    next_segment_index: int | None = None
    """When going on: how many segments' texts the client has. None: it does not tell."""
    encoded: bool = False
    """The audio comes in containers; what is none is refused and not taken for raw PCM."""


class Chunk(Struct, frozen=True, kw_only=True):
    data: bytes
    chunk_index: int | None
    """None: a binary frame, whose index is the next one."""
    session_id: str | None


class Finish(Struct, frozen=True, kw_only=True):
    session_id: str


class Disconnected(Struct, frozen=True, kw_only=True):
    """The client is gone, or is to be let go; nothing can be sent any more."""


class Attached(Struct, frozen=True, kw_only=True):
    """The client is back, on a new connection, and has shown its token."""

    next_segment_index: int | None


# --------------------------------------------------------------- events: from the session's audio


class AudioDecoded(Struct, frozen=True, kw_only=True):
    """PCM of chunk ``chunk_index``; see ``gateway.audio.audio_input.Decoded`` for the parts."""

    chunk_index: int
    tail: bytes
    pcm: bytes
    starts_container: bool
    ends_container: bool
    clean_start: bool = False
    tail_failure: Failure | None = None
    """The previous container turned out to be bad at its end; this chunk is fine."""


class AudioFailed(Struct, frozen=True, kw_only=True):
    """A chunk, or with no index the end of the audio, could not be decoded; ``pcm`` is what came
    before the fault."""

    chunk_index: int | None
    code: str
    message: str
    pcm: bytes = b""


class AudioFinished(Struct, frozen=True, kw_only=True):
    """No more audio will come; ``tail`` is what the decoder still held."""

    tail: bytes


class SpeechProbabilities(Struct, frozen=True, kw_only=True):
    """Answer to ``DetectSpeech``: one probability per 32 ms frame."""

    probabilities: tuple[float, ...]


# ----------------------------------------------------------------------------- events: from the bus


class ResultArrived(Struct, frozen=True, kw_only=True):
    result: Result


class KeysStored(Struct, frozen=True, kw_only=True):
    """Rows of this session that are committed."""

    keys: tuple[StoredKey, ...]


class BrokerRestarted(Struct, frozen=True, kw_only=True):
    """A new broker epoch: it knows none of our jobs."""


class Tick(Struct, frozen=True, kw_only=True):
    """Time has passed. Sent to every live session about five times a second."""


class Interrupted(Struct, frozen=True, kw_only=True):
    """This gateway stops, and the client has been told to go elsewhere."""


class Deleted(Struct, frozen=True, kw_only=True):
    """The session is being deleted by REST: end it and store nothing more."""


Event = (
    Start
    | Chunk
    | Finish
    | Disconnected
    | Attached
    | AudioDecoded
    | AudioFailed
    | AudioFinished
    | SpeechProbabilities
    | ResultArrived
    | KeysStored
    | BrokerRestarted
    | Tick
    | Interrupted
    | Deleted
)

# ---------------------------------------------------------------- actions: what the client is told


class Started(Struct, frozen=True, kw_only=True):
    session_id: str
    resume_token: str
    next_chunk_index: int


class Resumed(Struct, frozen=True, kw_only=True):
    """Go on with this chunk; texts of segments from ``next_segment_index`` follow."""

    session_id: str
    resume_token: str
    next_chunk_index: int
    next_segment_index: int


class ChunkReceived(Struct, frozen=True, kw_only=True):
    """Chunks up to ``chunk_index`` are received."""

    chunk_index: int


class PartialText(Struct, frozen=True, kw_only=True):
    segment_index: int
    text: str


class SegmentText(Struct, frozen=True, kw_only=True):
    session_id: str
    chunk_index: int
    segment_index: int
    start_ms: int
    end_ms: int
    text: str
    tokens: tuple[Token, ...] = ()


class Finished(Struct, frozen=True, kw_only=True):
    session_id: str
    text: str
    duration_ms: int
    chunk_count: int
    stored: bool


class Problem(Struct, frozen=True, kw_only=True):
    """An error answer; the session goes on unless a ``Close`` follows."""

    code: str
    message: str
    chunk_index: int | None = None
    expected_chunk_index: int | None = None
    segment_index: int | None = None


Answer = Started | Resumed | ChunkReceived | PartialText | SegmentText | Finished | Problem

# ----------------------------------------------------------------- actions: what else is to be done


class DecodeChunk(Struct, frozen=True, kw_only=True):
    """Decode ``data``, then tell ``AudioDecoded`` or ``AudioFailed``. In order, one at a time."""

    chunk_index: int
    data: bytes
    whole: bool
    """Mode chunk: the chunk stands for itself; flush the decoder at its end."""


class FinishAudio(Struct, frozen=True, kw_only=True):
    """Flush the decoder, then tell ``AudioFinished`` or ``AudioFailed``."""


class DetectSpeech(Struct, frozen=True, kw_only=True):
    """Run voice activity detection over these whole 512-sample frames, then tell
    ``SpeechProbabilities``."""

    pcm: bytes


class SubmitJob(Struct, frozen=True, kw_only=True):
    job: Job


class SubmitRecord(Struct, frozen=True, kw_only=True):
    """Keep ``record`` and send it until it is stored."""

    record: Record


class KeepResult(Struct, frozen=True, kw_only=True):
    """See that this result is stored, by a copy of it if need be. ``contested``: something else
    may have been published for the segment, and this is what the client is told."""

    result: Result
    contested: bool = False
    waited_s: float = 0.0
    """Since the segment's job was first sent, for the metrics."""


class CancelJobs(Struct, frozen=True, kw_only=True):
    session_id: str


class Close(Struct, frozen=True, kw_only=True):
    """Close the connection with this WebSocket code once everything before it is sent."""

    code: int
    reason: str


Action = (
    Answer
    | DecodeChunk
    | FinishAudio
    | DetectSpeech
    | SubmitJob
    | SubmitRecord
    | KeepResult
    | CancelJobs
    | Close
)
