"""Typed messages of the bus, one frozen class per kind (docs/architecture.md, "Messages").

Units are in the names. Every class is plain data: building one never validates, because our own
code is trusted; ``wire.codec.decode`` validates whatever came from a peer.
"""

from __future__ import annotations

from typing import Any, Literal

from wire.checkers import Name, Ratio
from wire.plain import plain_data

Lane = Literal["live", "bulk"]
StoredKind = Literal["result", "record"]

SAMPLE_RATE_HZ = 16_000
"""Every PCM payload is mono s16le at this rate."""
BYTES_PER_SAMPLE = 2
JOB_DEADLINE_MS_MAX = 600_000
"""The broker shortens a longer deadline to this: every job must end."""


def pcm_duration_ms(pcm: bytes) -> int:
    """Milliseconds of audio in mono s16le 16 kHz ``pcm``, rounded down."""
    return len(pcm) * 1000 // (SAMPLE_RATE_HZ * BYTES_PER_SAMPLE)


@plain_data
class Token:
    """One recognised word or character with its place on the session's timeline."""

    text: str
    start_ms: int
    end_ms: int


@plain_data
class Failure:
    """Why something has no text. ``code`` is stable for programs, ``message`` is for people."""

    code: Name
    message: str


# ---------------------------------------------------------------- gateway → broker


@plain_data
class Hello:
    """A gateway is here. Sent at start and four times a second; answered by ``Welcome``."""

    gateway_id: Name
    expected_audio_rate: Ratio = 0.0
    """Seconds of audio per second that its new sessions are yet to bring, see
    ``gateway.admission.policy``."""


@plain_data
class Job:
    """One utterance, or with ``partial`` the beginning of one, to be recognised."""

    session_id: Name
    seq: int
    """The segment's index in its session; results leave the gateway in this order."""
    partial: bool
    lane: Lane
    start_ms: int
    end_ms: int
    last_chunk_index: int
    """Index of the client's chunk in which the segment ends."""
    language: Name
    """``""`` lets the model decide."""
    hotwords: tuple[str, ...]
    deadline_ms: int
    """Longest time from the broker's receipt to the result, all attempts together."""
    pcm: bytes
    generation: int = 0
    """How often the session has been taken over by another gateway; the highest counts."""
    provisional: bool = False
    """The audio ends here only because client or gateway went away: should the session go on, the
    utterance is recognised anew, as a whole."""
    resume_chunk_index: int = 0
    """What follows this segment can be decoded again from this chunk on …"""
    resume_sample: int = 0
    """… whose audio begins at this sample of the session's timeline."""


@plain_data
class Cancel:
    """Forget every job of a session; results still under way are not delivered."""

    session_id: Name


@plain_data
class Record:
    """Something to be stored besides results: see ``wire.records`` for the bodies."""

    session_id: Name
    record_seq: int
    """From 0 in each generation."""
    body: dict[str, Any]
    generation: int = 0


@plain_data
class Claim:
    """The session's client is here now: whoever had it before lets go of it."""

    session_id: Name
    generation: int
    """Of the session from now on."""
    resume_token_hash: Name


# ---------------------------------------------------------------- broker → gateway


@plain_data
class Claimed:
    """Another gateway's ``Claim``. Whoever has the session in an older generation, and with this
    token, lets go of it. Only saves work: what it still did would be of an old generation."""

    session_id: Name
    generation: int
    resume_token_hash: Name


@plain_data
class Welcome:
    """The broker's life: a new epoch means that it forgot everything. Also sent to workers."""

    broker_epoch: Name


@plain_data
class Result:
    """The text of a job, or its failure; exactly one of ``text`` and ``error`` is set."""

    session_id: Name
    seq: int
    partial: bool
    start_ms: int
    end_ms: int
    last_chunk_index: int
    text: str | None
    error: Failure | None
    tokens: tuple[Token, ...]
    worker_id: Name
    attempt: int
    queue_ms: int
    infer_ms: int
    batch_jobs: int = 1
    """Jobs in the batch that took ``infer_ms``."""
    generation: int = 0
    provisional: bool = False
    resume_chunk_index: int = 0
    resume_sample: int = 0
    """These four as in the job."""


@plain_data
class StoredKey:
    """What was committed: segment ``seq`` (kind result) or record ``seq`` (kind record)."""

    session_id: Name
    kind: StoredKind
    seq: int
    generation: int = 0


@plain_data
class Stored:
    """Committed keys. Persistence names the gateway that sent them; the broker only forwards."""

    gateway_id: Name
    keys: tuple[StoredKey, ...]
    superseded: tuple[int, ...] = ()
    """Places of the keys of what was dropped, because the session is of a newer generation: it has
    moved on to another gateway."""


@plain_data
class Load:
    """The broker's state, every 250 ms. None for 1 s means that there is no broker."""

    broker_epoch: Name
    queued_audio_ms: int
    queued: int
    in_flight: int
    failed_total: int
    workers: int
    workers_busy: int
    throughput_rtfx: float
    """Seconds of audio recognised per second, all workers together, measured."""
    est_wait_ms: int
    models: tuple[Name, ...]
    """Names of what the ready workers recognise with."""
    arriving_audio_rate: float = 0.0
    """Seconds of live audio accepted per second, over the last few, partials apart."""
    expected_audio_rate: float = 0.0
    """What all gateways' new sessions are yet to bring, as they told in ``Hello``."""
    gateways: int = 1
    """That are known to the broker."""


# ---------------------------------------------------------------- worker → broker


@plain_data
class Ready:
    """A worker takes jobs, at most ``credits`` at a time. Repeated to a new broker epoch."""

    worker_id: Name
    credits: int
    model: Name
    device: Name
    throughput_rtfx: Ratio = 0.0
    """Seconds of audio per second, as it measured at its start; 0: not measured."""


@plain_data
class Heartbeat:
    """The inference loop turns. ``busy_ms``: how long the present batch has been running."""

    worker_id: Name
    busy_ms: int


@plain_data
class WorkerResult:
    """A worker's answer. Exactly one of ``text`` and ``error`` is set; token times are
    relative to the job's audio."""

    broker_epoch: Name
    job_id: int
    attempt: int
    text: str | None
    error: Failure | None
    tokens: tuple[Token, ...]
    infer_ms: int
    """Of the whole batch."""
    batch_jobs: int = 1
    """How many jobs that batch had."""


@plain_data
class ReturnedJob:
    """A job that a draining worker gives back unbegun."""

    job_id: int
    attempt: int


@plain_data
class Bye:
    """Draining: takes no more jobs, gives back what it has not begun, will finish the rest."""

    worker_id: Name
    broker_epoch: Name
    returned: tuple[ReturnedJob, ...]


# ---------------------------------------------------------------- broker → worker


@plain_data
class WorkerJob:
    """A job as a worker sees it: audio and how to recognise it. Of whom it is, is for the worker's
    log and traces; nothing is kept of a session."""

    broker_epoch: Name
    job_id: int
    attempt: int
    partial: bool
    language: Name
    hotwords: tuple[str, ...]
    pcm: bytes
    session_id: Name = ""
    seq: int = 0


# ---------------------------------------------------------------- broker → persistence (XPUB)


@plain_data
class PublishedResult:
    """A final result with its job's segment fields: a whole row of ``asr_segments``."""

    broker_epoch: Name
    gateway_id: Name
    result: Result


@plain_data
class PublishedRecord:
    """A gateway's record on its way to PostgreSQL."""

    broker_epoch: Name
    gateway_id: Name
    record: Record


Message = (
    Hello
    | Job
    | Cancel
    | Record
    | Claim
    | Claimed
    | Welcome
    | Result
    | Stored
    | Load
    | Ready
    | Heartbeat
    | WorkerResult
    | Bye
    | WorkerJob
    | PublishedResult
    | PublishedRecord
)
