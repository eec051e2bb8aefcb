"""What a client session is told (events) and what it asks for (actions), as plain data.

Client events come from a dialect, audio events from decoding and voice activity detection, bus
events from the broker link. Actions are performed by ``gateway.web.websocket``, which decides
nothing.
"""

from __future__ import annotations

from typing import Literal

from wire.messages import Failure, Job, Record, Result, StoredKey, Token
from wire.plain import plain_data

Mode = Literal["auto", "stream", "chunk"]

# ------------------------------------------------------------------------- events: from the client


@plain_data
class Start:
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


@plain_data
class Chunk:
    data: bytes
    chunk_index: int | None
    """None: a binary frame, whose index is the next one."""
    session_id: str | None


@plain_data
class Finish:
    session_id: str


@plain_data
class Disconnected:
    """The client is gone, or is to be let go; nothing can be sent any more."""


@plain_data
class Attached:
    """The client is back, on a new connection, and has shown its token."""

    next_segment_index: int | None


# --------------------------------------------------------------- events: from the session's audio


@plain_data
class AudioDecoded:
    """PCM of chunk ``chunk_index``; see ``gateway.audio.audio_input.Decoded`` for the parts."""

    chunk_index: int
    tail: bytes
    pcm: bytes
    starts_container: bool
    ends_container: bool
    clean_start: bool = False
    tail_failure: Failure | None = None
    """The previous container turned out to be bad at its end; this chunk is fine."""


@plain_data
class AudioFailed:
    """A chunk, or with no index the end of the audio, could not be decoded; ``pcm`` is what came
    before the fault."""

    chunk_index: int | None
    code: str
    message: str
    pcm: bytes = b""


@plain_data
class AudioFinished:
    """No more audio will come; ``tail`` is what the decoder still held."""

    tail: bytes


@plain_data
class SpeechProbabilities:
    """Answer to ``DetectSpeech``: one probability per 32 ms frame."""

    probabilities: tuple[float, ...]


# ----------------------------------------------------------------------------- events: from the bus


@plain_data
class ResultArrived:
    result: Result


@plain_data
class KeysStored:
    """Rows of this session that are committed."""

    keys: tuple[StoredKey, ...]


@plain_data
class BrokerRestarted:
    """A new broker epoch: it knows none of our jobs."""


@plain_data
class Tick:
    """Time has passed. Sent to every live session about five times a second."""


@plain_data
class Interrupted:
    """This gateway stops, and the client has been told to go elsewhere."""


@plain_data
class Deleted:
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


@plain_data
class Started:
    session_id: str
    resume_token: str
    next_chunk_index: int


@plain_data
class Resumed:
    """Go on with this chunk; texts of segments from ``next_segment_index`` follow."""

    session_id: str
    resume_token: str
    next_chunk_index: int
    next_segment_index: int


@plain_data
class ChunkReceived:
    """Chunks up to ``chunk_index`` are received."""

    chunk_index: int


@plain_data
class PartialText:
    segment_index: int
    text: str


@plain_data
class SegmentText:
    session_id: str
    chunk_index: int
    segment_index: int
    start_ms: int
    end_ms: int
    text: str
    tokens: tuple[Token, ...] = ()


@plain_data
class Finished:
    session_id: str
    text: str
    duration_ms: int
    chunk_count: int
    stored: bool


@plain_data
class Problem:
    """An error answer; the session goes on unless a ``Close`` follows."""

    code: str
    message: str
    chunk_index: int | None = None
    expected_chunk_index: int | None = None
    segment_index: int | None = None


Answer = Started | Resumed | ChunkReceived | PartialText | SegmentText | Finished | Problem

# ----------------------------------------------------------------- actions: what else is to be done


@plain_data
class DecodeChunk:
    """Decode ``data``, then tell ``AudioDecoded`` or ``AudioFailed``. In order, one at a time."""

    chunk_index: int
    data: bytes
    whole: bool
    """Mode chunk: the chunk stands for itself; flush the decoder at its end."""


@plain_data
class FinishAudio:
    """Flush the decoder, then tell ``AudioFinished`` or ``AudioFailed``."""


@plain_data
class DetectSpeech:
    """Run voice activity detection over these whole 512-sample frames, then tell
    ``SpeechProbabilities``."""

    pcm: bytes


@plain_data
class SubmitJob:
    job: Job


@plain_data
class SubmitRecord:
    """Keep ``record`` and send it until it is stored."""

    record: Record


@plain_data
class KeepResult:
    """See that this result is stored, by a copy of it if need be. ``contested``: something else
    may have been published for the segment, and this is what the client is told."""

    result: Result
    contested: bool = False
    waited_s: float = 0.0
    """Since the segment's job was first sent, for the metrics."""


@plain_data
class CancelJobs:
    session_id: str


@plain_data
class Close:
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
