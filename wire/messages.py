"""Typed messages of the bus, one frozen class per kind (docs/architecture.md, "Messages").

Building a message does not check its types; ``wire.codec.decode`` checks what peers send. No
message refers to itself, so the garbage collector need not track any (``gc=False``).

Fields without a default belong to protocol version 1: every release sends them. Each field added
later has a default, which means that the sender's release does not know the field.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from wire.validation import Embedding, Languages, Name, Probability, Ratio, Text, UFloat, UInt

Lane = Literal["live", "bulk"]
HotwordUse = Literal["none", "words", "weights"]
StoredKind = Literal["result", "record"]

SAMPLE_RATE_HZ = 16_000
"""Every PCM payload is mono s16le at this rate."""
BYTES_PER_SAMPLE = 2
SESSION_ID_CHARS_MAX = 128
"""Longest session id that a gateway accepts and that ``asr_sessions`` can hold."""
STREAMED_PARTIAL_MS = 600
"""Audio that a partial job of a streaming model counts as, whatever its length: the model processes
only the audio since the last partial job, and gateways send one for about this much."""
JOB_DEADLINE_MS_MAX = 600_000
"""The broker shortens a longer deadline to this: every job must end."""


def pcm_duration_ms(pcm: bytes) -> int:
    """Milliseconds of audio in mono s16le 16 kHz ``pcm``, rounded down."""
    return len(pcm) * 1000 // (SAMPLE_RATE_HZ * BYTES_PER_SAMPLE)


class Token(Struct, frozen=True, kw_only=True, gc=False):
    """One recognised word or character, with its times on the session's timeline."""

    text: Text
    start_ms: UInt
    end_ms: UInt


class Failure(Struct, frozen=True, kw_only=True, gc=False):
    """Why a segment has no text. ``code`` is stable, for programs; ``message`` is for people."""

    code: Name
    message: Text


class Abilities(Struct, frozen=True, kw_only=True, gc=False):
    """The abilities of a model, determined by its worker when it was loaded."""

    languages: Languages = ()
    """Codes such as ``zh``; empty: unknown."""
    takes_language: bool = False
    """A session's language option changes the result."""
    detects_language: bool = False
    hotwords: HotwordUse = "none"
    word_times: bool = False
    punctuation: bool = False
    """Texts have punctuation, of the model's own or of the worker's punctuation model."""
    itn: bool = False
    """Inverse text normalisation ("twenty" → "20") is possible."""
    tags: bool = False
    """Results have an emotion and events."""
    streaming: bool = False
    """Partial results come from a streaming model."""
    speakers: bool = False
    """Results have a speaker embedding."""
    batch_jobs: UInt = 1
    """Batch size with the best throughput; 1: the model takes one utterance at a time."""


class Cost(Struct, frozen=True, kw_only=True, gc=False):
    """Processing time of a batch, as measured when the model was loaded. All zero: not measured."""

    batch_s: Ratio = 0.0
    """For each batch …"""
    utterance_s: Ratio = 0.0
    """… in addition for each of its utterances, whatever its length …"""
    second_s: Ratio = 0.0
    """… and in addition for each second of its audio, padding included."""

    def expected_s(self, jobs: int, audio_ms: int) -> float:
        """Processing time of a batch of ``jobs`` with ``audio_ms`` in total."""
        return self.batch_s + self.utterance_s * jobs + self.second_s * audio_ms / 1000


class Place(Struct, frozen=True, kw_only=True, gc=False):
    """A segment's place in its session."""

    seq: UInt
    """Index of the segment in its session. The gateway delivers results in this order."""
    start_ms: UInt
    end_ms: UInt
    last_chunk_index: UInt
    """Index of the client's chunk in which the segment ends."""
    provisional: bool = False
    """The audio ends here only because the client or the gateway disconnected. A resumed session
    recognises the whole utterance again."""
    resume_chunk_index: UInt = 0
    """The audio after this segment can be decoded again from this chunk on …"""
    resume_sample: UInt = 0
    """… which begins at this sample of the session's timeline."""


class Segment(Place, frozen=True, kw_only=True, gc=False):
    """A recognised segment, without its session and without its text or error.

    It declares the columns of ``asr_segments``: results, their copies, the SQL
    (``persistence.segments``) and the REST answer (``gateway.web.schemas``) follow from it. A new
    column is a field here, a migration named ``NNNN_add_…``, and, if a model finds it, the same
    field of ``WorkerResult``.
    """

    tokens: tuple[Token, ...]
    worker_id: Name
    """``""``: no worker answered."""
    attempt: UInt
    queue_ms: UInt
    """From the broker's receipt of the job to the start of the answered attempt."""
    infer_ms: UInt
    """Duration of the whole batch."""
    language: Name = ""
    """The language that the model detected; ``""``: unknown."""
    confidence: Probability | None = None
    """The model's own estimate that the text is right; None: the model has none."""
    emotion: Name = ""
    """The speaker's emotion, such as ``happy``; ``""``: unknown."""
    events: tuple[Name, ...] = ()
    """Other sounds that the model recognised, such as ``laughter``."""


# ---------------------------------------------------------------- gateway → broker


class ExpectedAudio(Struct, frozen=True, kw_only=True, gc=False):
    """Audio that a gateway expects from its new sessions of one model and has not received yet."""

    model: Name
    """Served name."""
    audio_rate: Ratio
    """Seconds of audio per second."""


class Hello(Struct, frozen=True, kw_only=True, gc=False):
    """Registers a gateway and renews its lease. Sent at start, four times a second, and after
    audio. Answered by ``Welcome`` or ``Refused``."""

    gateway_id: Name
    expected_audio_rate: Ratio = 0.0
    """Seconds of audio per second expected from its new sessions and not received yet."""
    expected: tuple[ExpectedAudio, ...] = ()
    """The same by model."""
    version_min: UInt = 1
    version_max: UInt = 1
    """Range of protocol versions that the gateway speaks."""
    system_id: Name = ""
    """The gateway's SYSTEM_ID; ``""``: of a release that has none."""
    number: UInt = 0
    """Counts from 1; ``Welcome`` repeats it. 0: of a release that does not count them."""
    padding: bytes = b""
    """Meaningless bytes that fill the link, so that its capacity can be measured."""


class Job(Place, frozen=True, kw_only=True, gc=False):
    """One utterance, or with ``partial`` the beginning of one, to be recognised."""

    session_id: Name
    partial: bool
    lane: Lane
    language: Name
    """``""`` lets the model decide."""
    hotwords: tuple[Text, ...]
    deadline_ms: UInt
    """Longest time from receipt by the broker to the result, over all attempts."""
    pcm: bytes
    generation: UInt = 0
    """Number of times that another gateway has taken over the session; the highest counts."""
    model: Name = ""
    """The served name of the model that must recognise it; ``""``: any model."""
    speakers: bool = False
    """The result needs a speaker embedding, if the worker can make one."""
    punctuation: bool | None = None
    itn: bool | None = None
    """Whether the text should have punctuation, and numbers in digits (inverse text normalisation);
    None: the default of the model and its worker."""
    context: Text = ""
    """End of the text before the segment; ``""``: unknown."""

    def result(
        self, *, text: str | None = None, error: Failure | None = None, **recognised: Any
    ) -> Result:
        """Return the job's result. ``recognised`` holds further fields of ``Result``, by default
        those of a job that no worker has answered."""
        return Result(
            session_id=self.session_id,
            partial=self.partial,
            generation=self.generation,
            text=text,
            error=error,
            seq=self.seq,
            start_ms=self.start_ms,
            end_ms=self.end_ms,
            last_chunk_index=self.last_chunk_index,
            provisional=self.provisional,
            resume_chunk_index=self.resume_chunk_index,
            resume_sample=self.resume_sample,
            **{**_UNANSWERED, **recognised},
        )


_UNANSWERED = {"tokens": (), "worker_id": "", "attempt": 0, "queue_ms": 0, "infer_ms": 0}


class Cancel(Struct, frozen=True, kw_only=True, gc=False):
    """Drop every job of a session. Results not sent yet are not delivered."""

    session_id: Name


class Record(Struct, frozen=True, kw_only=True, gc=False):
    """Data to store besides results; ``wire.records`` declares the bodies."""

    session_id: Name
    record_seq: UInt
    """Counts from 0 in each generation."""
    body: dict[str, Any]
    generation: UInt = 0

    @property
    def key(self) -> StoredKey:
        """The key that persistence confirms after COMMIT."""
        return StoredKey(
            session_id=self.session_id,
            kind="record",
            seq=self.record_seq,
            generation=self.generation,
        )


class Claim(Struct, frozen=True, kw_only=True, gc=False):
    """The session's client is now connected to this gateway. Any other must release it."""

    session_id: Name
    generation: UInt
    """The session's new generation."""
    resume_token_hash: Name
    deleted: bool = False
    """The session is being deleted instead, whatever its generation."""


# ---------------------------------------------------------------- broker → gateway


class Claimed(Claim, frozen=True, kw_only=True, gc=False):
    """Another gateway's ``Claim``. A gateway that has the session in an older generation, with the
    same token, releases it. This only saves work: results of an older generation are discarded."""


class Welcome(Struct, frozen=True, kw_only=True, gc=False):
    """Names the broker's epoch. A new one means that the broker has restarted without its state."""

    broker_epoch: Name
    version: UInt = 1
    """Protocol version to use; the broker's lowest until it knows the peer's range."""
    hello: UInt = 0
    """The ``number`` of the ``Hello`` that it answers; 0: none, or one without a number."""
    received_ms: UInt = 0
    """When that arrived, on the broker's monotonic clock; 0: unknown, because it did not run."""


class Refused(Struct, frozen=True, kw_only=True, gc=False):
    """The broker does not serve the gateway or worker: they have no common protocol version, belong
    to different systems, or the peer is connected to another endpoint."""

    version_min: UInt
    version_max: UInt
    """Range of protocol versions that the broker speaks."""
    system_id: Name = ""
    """The broker's SYSTEM_ID if the peer has another one; else ``""``."""
    setting: Name = ""
    """The setting of the peer that leads to another endpoint of the broker; else ``""``."""


class Result(Segment, frozen=True, kw_only=True, gc=False):
    """The text of a job, or its failure. Exactly one of ``text`` and ``error`` is set."""

    session_id: Name
    partial: bool
    text: Text | None
    error: Failure | None
    batch_jobs: UInt = 1
    """Number of jobs in the batch that took ``infer_ms``."""
    generation: UInt = 0
    embedding: Embedding = b""
    """The speaker embedding, of length 1. For the session's gateway only: it is not published."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.error is None):
            raise ValueError("needs either text or error")

    @property
    def key(self) -> StoredKey:
        """The key that persistence confirms after COMMIT."""
        return StoredKey(
            session_id=self.session_id, kind="result", seq=self.seq, generation=self.generation
        )


class StoredKey(Struct, frozen=True, kw_only=True, gc=False):
    """Identifies committed data: segment ``seq`` (kind result) or record ``seq`` (kind record)."""

    session_id: Name
    kind: StoredKind
    seq: UInt
    generation: UInt = 0


class Stored(Struct, frozen=True, kw_only=True, gc=False):
    """Committed keys, for the gateway that sent the data; the broker forwards the message to it."""

    gateway_id: Name
    system_id: Name = ""
    """As in ``Hello``: of persistence."""
    keys: tuple[StoredKey, ...]
    superseded: tuple[UInt, ...] = ()
    """Indexes of the keys that were dropped instead: another gateway has taken the session over."""


class ServedModel(Struct, frozen=True, kw_only=True, gc=False):
    """The state of the workers that serve one model."""

    name: Name
    """Served name: sessions request the model, and jobs are routed, by it."""
    model: Name
    workers: UInt
    workers_busy: UInt = 0
    throughput_rtfx: UFloat = 0.0
    queued_audio_ms: UInt = 0
    est_wait_ms: UInt = 0
    utterance_ms: UInt = 0
    """Time that a worker takes for an utterance of average length by itself."""
    arriving_audio_rate: UFloat = 0.0
    expected_audio_rate: UFloat = 0.0
    partials_busy: UFloat = 0.0
    """Workers that partial jobs keep busy, a moving average."""
    abilities: Abilities = Abilities()
    """The abilities that all workers of the model have in common."""


class Load(Struct, frozen=True, kw_only=True, gc=False):
    """The broker's state, sent every 250 ms. Without one for 1 s, there is no broker."""

    broker_epoch: Name
    queued_audio_ms: UInt
    queued: UInt
    in_flight: UInt
    failed_total: UInt
    workers: UInt
    workers_busy: UInt
    throughput_rtfx: UFloat
    """Measured seconds of audio recognised per second, over all workers."""
    est_wait_ms: UInt
    models: tuple[Name, ...]
    """Names of the ready workers' models."""
    arriving_audio_rate: UFloat = 0.0
    """Seconds of live audio accepted per second, a moving average without partials."""
    expected_audio_rate: UFloat = 0.0
    """Sum of the same field of all gateways' ``Hello``."""
    gateways: UInt = 1
    """Number of registered gateways."""
    workers_sent_rate: UFloat = 0.0
    """Bytes of audio sent to workers per second, a moving average, …"""
    workers_sent_peak_rate: UFloat = 0.0
    """… and its recent peak."""
    workers_link_rate: UFloat = 0.0
    """Capacity of the links to workers together, in bytes per second, measured while they are full;
    0: they never were."""
    served: tuple[ServedModel, ...] = ()
    """Each model, by its served name, in alphabetical order: those of ready workers, and those that
    had workers or jobs within the last ten minutes."""
    subscribed: bool = True
    """Whether persistence receives what the broker publishes. If not, records and results are lost
    and must be sent again."""


# ---------------------------------------------------------------- worker → broker


class JobAttempt(Struct, frozen=True, kw_only=True, gc=False):
    job_id: UInt
    attempt: UInt


class Ready(Struct, frozen=True, kw_only=True, gc=False):
    """Registers a worker, which accepts at most ``credits`` jobs at a time. Sent again in each new
    broker epoch. Answered by ``Welcome`` or ``Refused``."""

    worker_id: Name
    credits: UInt
    model: Name
    device: Name
    throughput_rtfx: Ratio = 0.0
    """Seconds of audio recognised per second in batches of the best size; 0: not measured."""
    cost: Cost = Cost()
    streamed_credits: UInt = 0
    """Partial jobs that a streaming model accepts in addition; 0: partial jobs take ``credits``."""
    streamed_s: Ratio = 0.0
    """Processing time of such a job in a batch of them."""
    served_name: Name = ""
    """The name by which sessions request the model; ``""``: the same as ``model``."""
    abilities: Abilities = Abilities()
    version_min: UInt = 1
    version_max: UInt = 1
    """Range of protocol versions that the worker speaks."""
    system_id: Name = ""
    """As in ``Hello``."""
    broker_epoch: Name = ""
    held: tuple[JobAttempt, ...] = ()
    """On a new connection to the broker of this epoch: the jobs that have arrived and have no
    result yet. Others that it has assigned, or their results, were lost with the previous one."""
    answers_marks: bool = False
    """The broker may send ``Mark``: it is on another host."""


class Usage(Struct, frozen=True, kw_only=True, gc=False):
    """Where a process runs and what it uses. None: unknown."""

    host: Name = ""
    pid: UInt = 0
    version: Name = ""
    uptime_s: UInt = 0
    cpu_cores: UFloat = 0.0
    """Processor seconds per second, of this process without its children."""
    memory_bytes: UInt | None = None
    """Resident memory."""
    gpu: Name = ""
    """Name of the accelerator; empty: none, or unknown."""
    gpu_memory_bytes: UInt | None = None
    """In use on the accelerator, by all processes."""
    gpu_memory_total_bytes: UInt | None = None


class Heartbeat(Struct, frozen=True, kw_only=True, gc=False):
    """The inference loop is alive."""

    worker_id: Name
    busy_ms: UInt
    """Running time of the present batch; 0: idle."""
    usage: Usage | None = None
    """Every few seconds."""
    credits: UInt = 0
    streamed_credits: UInt = 0
    """The present values of these fields of ``Ready``: lower if the worker serves several brokers.
    ``credits`` of 0: those of ``Ready`` still hold, of a release that serves one broker."""


class WorkerResult(Struct, frozen=True, kw_only=True, gc=False):
    """A worker's answer: either ``text`` or ``error``. Token times count from the audio's start."""

    broker_epoch: Name
    job_id: UInt
    attempt: UInt
    text: Text | None
    error: Failure | None
    tokens: tuple[Token, ...]
    infer_ms: UInt
    """Duration of the whole batch."""
    batch_jobs: UInt = 1
    """Number of jobs in that batch …"""
    broker_jobs: UInt = 0
    """… and of those from this broker; 0: all, of a release that serves one."""
    held_ms: UInt | None = None
    """From the job's arrival to this answer; None: same host, or an earlier release."""
    language: Name = ""
    confidence: Probability | None = None
    emotion: Name = ""
    events: tuple[Name, ...] = ()
    """As in ``Segment``."""
    embedding: Embedding = b""
    """As in ``Result``. Empty unless the job asks for it."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.error is None):
            raise ValueError("needs either text or error")


class MarkArrived(Struct, frozen=True, kw_only=True, gc=False):
    """The answer to a ``Mark``, at once."""

    number: UInt


class Bye(Struct, frozen=True, kw_only=True, gc=False):
    """The worker drains: it returns the jobs that it has not started, and finishes the others."""

    worker_id: Name
    broker_epoch: Name
    returned: tuple[JobAttempt, ...]


# ---------------------------------------------------------------- broker → worker


class WorkerJob(Struct, frozen=True, kw_only=True, gc=False):
    """A job as sent to a worker. ``session_id`` and ``seq`` are for the worker's log and traces,
    and identify the cached state of a streaming model, which may be lost."""

    broker_epoch: Name
    job_id: UInt
    attempt: UInt
    partial: bool
    language: Name
    hotwords: tuple[Text, ...]
    pcm: bytes
    session_id: Name = ""
    seq: UInt = 0
    speakers: bool = False
    punctuation: bool | None = None
    itn: bool | None = None
    context: Text = ""
    """As in ``Job``."""


class Mark(Struct, frozen=True, kw_only=True, gc=False):
    """Measures the link to a worker. Answered by ``MarkArrived``."""

    number: UInt
    padding: bytes = b""
    """As in ``Hello``."""


# ---------------------------------------------------------------- broker → persistence (XPUB)


class PublishedResult(Struct, frozen=True, kw_only=True, gc=False):
    """A final result, which is a row of ``asr_segments``."""

    broker_epoch: Name
    gateway_id: Name
    system_id: Name = ""
    """As in ``Hello``: of the broker."""
    result: Result


class PublishedRecord(Struct, frozen=True, kw_only=True, gc=False):
    """A gateway's record, for PostgreSQL."""

    broker_epoch: Name
    gateway_id: Name
    system_id: Name = ""
    """As in ``Hello``: of the broker."""
    record: Record


Message = (
    Hello
    | Job
    | Cancel
    | Record
    | Claim
    | Claimed
    | Welcome
    | Refused
    | Result
    | Stored
    | Load
    | Ready
    | Heartbeat
    | WorkerResult
    | MarkArrived
    | Bye
    | WorkerJob
    | Mark
    | PublishedResult
    | PublishedRecord
)
