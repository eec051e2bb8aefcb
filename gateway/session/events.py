"""Events and actions of a session, as plain data.

A session is fed events: the client's come from a dialect, those of its audio from the runner, which
decodes and detects speech, and those of the bus from the server. ``Session.handle`` returns the
actions that follow. ``gateway.session.runner`` performs them and decides nothing.

Messages of the bus need no class here. A ``Result`` is an event. A ``Job`` or ``Cancel`` is an
action: send it. A ``Record`` is one, too: keep it, and send it until it is stored.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from gateway.audio.timeline import AudioDecoded
from gateway.audio.wav import DeclaredAudio
from gateway.session.endpointer import Endpointing
from wire.messages import Abilities, Cancel, Failure, Job, Record, Result, StoredKey, Token

Mode = Literal["auto", "stream", "chunk"]

# -------------------------------------------------------------------------- events: from the client


class SessionWarning(Struct, frozen=True, kw_only=True):
    """A request of the client that has no effect, or audio that is not used. The session
    continues."""

    code: str
    message: str


class Start(Struct, frozen=True, kw_only=True):
    session_id: str
    user_id: str = ""
    mode: Mode
    sample_rate_hz: int
    """Sample rate of raw PCM. Containers carry their own."""
    language: str = ""
    hotwords: tuple[str, ...] = ()
    partials: bool = False
    resume_token: str | None = None
    """Set: resume the session that this token was issued for."""
    next_segment_index: int | None = None
    """On resume: the number of segments whose text the client has. None: unknown."""
    speakers: bool = False
    """Report the speaker of each segment."""
    model: str = ""
    """The served name that the client asks for; ``""``: by language, or the default. Once the
    session begins, its model."""
    abilities: Abilities = Abilities()
    """Abilities of the session's model."""
    ignored_fields: tuple[str, ...] = ()
    """Names of fields in the client's message that have no effect, such as misspelt ones."""
    punctuation: bool | None = None
    itn: bool | None = None
    """Whether texts should have punctuation, and numbers in digits; None: the model's default."""
    result_per_file: bool = False
    """In mode auto: a chunk that holds one whole file gets exactly one ``SegmentText``, or
    ``SilentFile``."""
    encoded: bool = False
    """The audio is always in containers: anything else is ``bad_audio``, never raw PCM."""
    declared_raw: bool = False
    """The client declares that audio without a container's signature is raw PCM."""
    declared: DeclaredAudio | None = None
    """Its form, if the client names it, and not only a default."""
    endpointing: Endpointing = Endpointing()
    speech_events: bool = False
    """Report when speech starts and ends."""
    long_silence_ms: int | None = None
    """With ``speech_events``: report when this much silence has followed speech."""
    warnings_at_once: bool = False
    """Report unused audio when it is known, and not only at the end."""
    model_optional: bool = False
    """If no ``model`` has this name, the session gets another one, as if it had named none."""


class Chunk(Struct, frozen=True, kw_only=True):
    data: bytes
    chunk_index: int | None = None
    """None: a binary frame. It takes the next index."""
    session_id: str | None = None
    ignored_fields: tuple[str, ...] = ()
    """Names of fields in the client's message that have no effect."""


class EndUtterance(Struct, frozen=True, kw_only=True):
    """The open utterance ends with the audio so far; the session continues. Answered by
    ``SpeechEnded``, also in silence."""

    discard: bool = False
    """Do not recognise it."""


class Finish(Struct, frozen=True, kw_only=True):
    session_id: str


class Disconnected(Struct, frozen=True, kw_only=True):
    """The client's connection is closed or detached. Nothing more can be sent on it."""


class Attached(Struct, frozen=True, kw_only=True):
    """The client has resumed on a new connection; its token was checked."""

    next_segment_index: int | None


class SegmentWritten(Struct, frozen=True, kw_only=True):
    """The answer for this segment was written to the client's socket."""

    segment_index: int


# ----------------------------------------------------------------- events: from the session's audio


class AudioFailed(Struct, frozen=True, kw_only=True):
    """The chunk being decoded, or the end of the audio, is invalid; ``pcm`` precedes the fault.
    ``was_noise``: so is the audio before it that is not recognised yet."""

    code: str
    message: str
    pcm: bytes = b""
    was_noise: bool = False


class SpeechProbabilities(Struct, frozen=True, kw_only=True):
    """One probability for each frame that ``Session.take_frames`` returned. Ends the work on a
    chunk, so it is sent without frames too."""

    probabilities: tuple[float, ...]


# ----------------------------------------------------------------------------- events: from the bus


class KeysStored(Struct, frozen=True, kw_only=True):
    """Rows of this session that are committed."""

    keys: tuple[StoredKey, ...]


class JobsMayBeLost(Struct, frozen=True, kw_only=True):
    """The broker has restarted, or was silent so long that messages may be lost."""


# ------------------------------------------------------------------------- events: from the gateway


class Tick(Struct, frozen=True, kw_only=True):
    """Time has passed. Sent to every running session about twice a second."""


class Interrupted(Struct, frozen=True, kw_only=True):
    """The gateway is stopping. The client was sent close code 1012."""


class AudioRefused(Struct, frozen=True, kw_only=True):
    """The client may send no more audio: the session ends with the audio so far."""

    code: str
    message: str


class Deleted(Struct, frozen=True, kw_only=True):
    """The session was deleted by REST."""


class Released(Struct, frozen=True, kw_only=True):
    """The session failed, or continues elsewhere. It ends without an answer."""

    failure: Failure | None = None
    """Recorded as its end, unless that is recorded already. None: its client may resume it."""


# --------------------------------------------------------------- events: from the session to itself


class AlreadyComplete(Struct, frozen=True, kw_only=True):
    """The resume point has the final result."""


class InputEnded(Struct, frozen=True, kw_only=True):
    """The client has sent all audio."""


class Abandoned(Struct, frozen=True, kw_only=True):
    """The client did not resume in time, or the gateway is stopping."""


class AllDelivered(Struct, frozen=True, kw_only=True):
    """Every segment has its result."""


class AllStored(Struct, frozen=True, kw_only=True):
    """Every record and result is committed."""


class ConfirmTimedOut(Struct, frozen=True, kw_only=True):
    """COMMIT has taken longer than ``SessionLimits.stored_wait_s``."""


ClientEvent = Start | Chunk | EndUtterance | Finish
Event = (
    ClientEvent
    | Disconnected
    | Attached
    | SegmentWritten
    | AudioDecoded
    | AudioFailed
    | AudioRefused
    | SpeechProbabilities
    | Result
    | KeysStored
    | JobsMayBeLost
    | Tick
    | Interrupted
    | Deleted
    | Released
    | AlreadyComplete
    | InputEnded
    | Abandoned
    | AllDelivered
    | AllStored
    | ConfirmTimedOut
)

# ------------------------------------------------------------------- actions: answers to the client


class Started(Struct, frozen=True, kw_only=True):
    session_id: str
    resume_token: str
    next_chunk_index: int
    model: str = ""
    """Served name."""
    abilities: Abilities = Abilities()
    warnings: tuple[SessionWarning, ...] = ()


class Resumed(Started, frozen=True, kw_only=True):
    """Continue with this chunk. Texts of segments from ``next_segment_index`` follow."""

    next_segment_index: int


class ChunkReceived(Struct, frozen=True, kw_only=True):
    """Chunks up to ``chunk_index`` are received."""

    chunk_index: int


class SpeechStarted(Struct, frozen=True, kw_only=True):
    """Only with ``Start.speech_events``."""

    start_ms: int
    """Including audio before the speech, as in the utterance."""


class SpeechEnded(Struct, frozen=True, kw_only=True):
    """With ``Start.speech_events``, and as the answer to ``EndUtterance``."""

    end_ms: int
    next_segment_index: int
    """Speech before is in the segments up to this one, whose texts may still follow."""
    requested: bool = False
    """It answers ``EndUtterance``."""


class LongSilence(Struct, frozen=True, kw_only=True):
    """``Start.long_silence_ms`` of silence have followed the speech before ``next_segment_index``,
    whose texts may still follow."""

    next_segment_index: int


class PartialText(Struct, frozen=True, kw_only=True):
    segment_index: int
    text: str
    start_ms: int = 0
    end_ms: int = 0
    tokens: tuple[Token, ...] = ()


class SegmentText(Struct, frozen=True, kw_only=True):
    """One segment; or all segments that end in a chunk, see ``Start.result_per_file``."""

    session_id: str
    chunk_index: int
    segment_index: int
    """Index of the last segment."""
    first_segment_index: int | None = None
    """Set if there are several segments."""
    start_ms: int
    end_ms: int
    text: str
    tokens: tuple[Token, ...] = ()
    speaker: int | None = None
    """Counts from 1 in order of appearance; None: unknown, or not asked for."""
    language: str = ""
    """The recognised language; ``""``: unknown. This field and the next three are those of
    ``wire.messages.Segment``."""
    confidence: float | None = None
    emotion: str = ""
    events: tuple[str, ...] = ()


class SilentFile(Struct, frozen=True, kw_only=True):
    """No segment ends in the chunk, which holds one whole file."""

    session_id: str
    chunk_index: int
    start_ms: int
    end_ms: int
    text: str = ""


class Finished(Struct, frozen=True, kw_only=True):
    session_id: str
    text: str
    duration_ms: int
    chunk_count: int
    stored: bool
    speakers: tuple[int | None, ...] | None = None
    """The speaker of each segment, by its index. Labels sent before may be corrected here. None:
    not asked for."""
    warnings: tuple[SessionWarning, ...] = ()
    """Parts of the audio that were not used, of the audio that this gateway decoded."""


class AudioWarned(Struct, frozen=True, kw_only=True):
    """Only with ``Start.warnings_at_once``. ``Finished`` repeats them."""

    warnings: tuple[SessionWarning, ...]


class Problem(Struct, frozen=True, kw_only=True):
    """An error answer. The session continues unless a ``Close`` follows."""

    code: str
    message: str
    chunk_index: int | None = None
    expected_chunk_index: int | None = None
    segment_index: int | None = None


Answer = (
    Started
    | Resumed
    | ChunkReceived
    | SpeechStarted
    | SpeechEnded
    | LongSilence
    | PartialText
    | SegmentText
    | SilentFile
    | Finished
    | AudioWarned
    | Problem
)

# ------------------------------------------------------------------------------ actions: all others


class FlushDecoder(Struct, frozen=True, kw_only=True):
    """Flush the decoder, then send ``AudioDecoded`` or ``AudioFailed``."""


class KeepResult(Struct, frozen=True, kw_only=True):
    """Keep ``result`` until it is stored, and send a copy if its publication is lost."""

    result: Result
    contested: bool = False
    """Another result may have been published for the segment. The client gets this one."""
    waited_s: float = 0.0
    """Time since the segment's job was first sent."""


class Count(Struct, frozen=True, kw_only=True):
    """An answer, a result or a speaker embedding was discarded, for this reason."""

    discarded: Literal["answer", "result", "embedding"]
    reason: str


class ObserveFinish(Struct, frozen=True, kw_only=True):
    """The final result follows, this long after the client's finish."""

    waited_s: float


class Close(Struct, frozen=True, kw_only=True):
    """Close the connection with this WebSocket code after all answers are sent."""

    code: int
    reason: str


Action = Answer | FlushDecoder | Job | Cancel | Record | KeepResult | Count | ObserveFinish | Close
