"""Prometheus metrics of the gateway. docs/metrics.md describes each of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from runtime.metrics import keep_only

PROBLEM_CODES: Final = frozenset(
    {
        *("bad_message", "bad_state", "bad_base64", "bad_audio", "audio_too_long"),
        *("expected_seq", "seq_conflict", "session_exists", "not_resumable", "resume_unavailable"),
        *("overloaded", "deadline", "chunk_failed", "recognition_failed", "deleted"),
        *("unknown_model", "audio_limit_reached"),
    }
)
"""Codes with series of their own. Codes also arrive over the bus, where a peer must not be able to
add series."""
REFUSAL_CODES: Final = (
    *("no_broker", "no_worker", "overloaded", "max_connections"),
    *("idle_connections", "storage_backlog", "draining"),
    *("origin_refused", "host_refused", "unauthorized"),
    "insufficient_scope",
    *("too_many_sessions", "audio_limit_reached", "too_many_requests"),
)

_LATENCY_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
"""Buckets for waiting times of people; the last is the deadline of a segment."""

# ------------------------------------------------------------------------------------------ clients

CONNECTIONS = Gauge("asr_gateway_connections", "Open WebSockets, and files being transcribed")
IDLE_CONNECTIONS = Gauge("asr_gateway_idle_connections", "Open WebSockets without a session")
REFUSED = Counter(
    "asr_gateway_refused_connections_total",
    "Connections, files and requests refused before their content was read, by code",
    ["code"],
)
LATE_HEADS = Counter(
    "asr_gateway_late_heads_total",
    "Connections closed because the headers of a request did not arrive in time",
)
BAD_REQUESTS = Counter(
    "asr_gateway_bad_requests_total",
    "Requests that are not valid HTTP (400) or do not match the API (422), by reason",
    ["reason"],
)
CLOSED = Counter(
    "asr_gateway_closed_connections_total",
    "WebSockets that this gateway closed, by WebSocket close code",
    ["code"],
)
SLOW_CLIENTS = Counter(
    "asr_gateway_slow_clients_total", "Clients closed because they did not read their answers"
)
PROBLEMS = Counter("asr_gateway_problems_total", "Error answers to clients, by code", ["code"])
ANSWERS_DISCARDED = Counter(
    "asr_gateway_answers_discarded_total",
    "Answers not sent to a client, by reason; results among them are sent when it resumes",
    ["reason"],
)
INPUT_IGNORED = Counter(
    "asr_gateway_input_ignored_total",
    "Messages of clients that have no meaning at that point of the protocol, by reason",
    ["reason"],
)
AUDIT_OMITTED = Counter(
    "asr_gateway_audit_omitted_total",
    "Refused requests that were not logged, because there were too many in a second",
)
UPLOADS = Counter(
    "asr_gateway_uploads_total", "Files uploaded over HTTP, by status of the answer", ["status"]
)
FILE_JOBS = Counter(
    "asr_gateway_file_jobs_total",
    "Files submitted for later, by event",
    ["event"],
)

# ----------------------------------------------------------------------------------------- sessions

SESSIONS = Counter("asr_gateway_sessions_total", "Events of sessions", ["event"])
SESSIONS_ACTIVE = Gauge("asr_gateway_active_sessions", "Sessions that are not finished")
FAILED_SESSIONS = Counter(
    "asr_gateway_failed_sessions_total", "Sessions ended by a bug of the gateway"
)
TAKEOVERS = Counter(
    "asr_gateway_takeovers_total",
    "Resumptions of sessions that were not on this gateway, by outcome",
    ["outcome"],
)
AUDIO_SECONDS = Counter("asr_gateway_audio_seconds_total", "Audio received")
CHUNK_SECONDS = Histogram(
    "asr_gateway_chunk_seconds",
    "From a chunk's arrival to its acknowledgement, or to its reception for a binary frame",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
SEGMENT_SECONDS = Histogram(
    "asr_gateway_segment_seconds",
    "From an utterance's detected end to its result, by lane",
    ["lane"],
    buckets=_LATENCY_S,
)
FINISH_SECONDS = Histogram(
    "asr_gateway_finish_seconds",
    "From a client's finish to its final result, by lane",
    ["lane"],
    buckets=_LATENCY_S,
)
RESULTS_DISCARDED = Counter(
    "asr_gateway_results_discarded_total",
    "Results from the broker that were not used, by reason",
    ["reason"],
)
EMBEDDINGS_DISCARDED = Counter(
    "asr_gateway_embeddings_discarded_total",
    "Speaker embeddings that were not used, by reason",
    ["reason"],
)

# -------------------------------------------------------------------------------- audio, admission

DECODERS = Gauge("asr_gateway_decoders", "Decoder processes in use")
DECODER_FAILURES = Counter(
    "asr_gateway_decoder_failures_total",
    "Encoded streams that could not be decoded, by reason",
    ["reason"],
)
VAD_WAITS = Counter(
    "asr_gateway_vad_waits_total", "Times that a client had to wait for speech detection"
)
DELAY = Gauge(
    "asr_gateway_delay_seconds",
    "Time of one frame of audio through the event loop and speech detection",
)
BUSY = Gauge(
    "asr_gateway_busy_ratio",
    "Share of time in which the event loop works or waits for a processor, new sessions included",
)
UTILISATION = Gauge(
    "asr_gateway_worker_utilisation_ratio",
    "Share of the workers' measured speed in use, new sessions' expected audio included",
)
WORKERS_NEEDED = Gauge(
    "asr_gateway_model_workers_needed",
    "Workers of a model, by its served name, with which one more session is admitted, at their "
    "present speed",
    ["model"],
)
WAIT_MAX = Gauge(
    "asr_gateway_expected_wait_max_seconds",
    "EST_WAIT_MS_MAX: new sessions are refused while the broker expects a longer wait",
)

# -------------------------------------------------------------------------------------- broker link

BROKER_UP = Gauge(
    "asr_gateway_broker_up", "1: a broker has reported its load within the last second"
)
BROKER_LIVE = Gauge(
    "asr_gateway_broker_live",
    "1: this broker has reported its load within the last two seconds",
    ["broker"],
)
BROKER_SESSIONS = Gauge(
    "asr_gateway_broker_sessions", "Sessions of this gateway that belong to this broker", ["broker"]
)
SESSIONS_MOVED = Counter(
    "asr_gateway_sessions_moved_total",
    "Sessions that went to another broker, because theirs was silent or had no workers",
)
ACCEPT_FAILURES = Counter(
    "asr_gateway_accept_failures_total",
    "Connections that could not be accepted yet, for lack of descriptors or memory",
)
BROKER_DELAY = Gauge(
    "asr_gateway_broker_delay_seconds",
    "How long the oldest HELLO has waited for a live broker's answer; above 1 new sessions get 503",
)
LINK_CAPACITY = Gauge(
    "asr_gateway_link_bytes_per_second",
    "Capacity of the link to this broker, in bytes per second, measured while it is full; 0: it "
    "never was",
    ["broker"],
)
LINK_UTILISATION = Gauge(
    "asr_gateway_link_utilisation",
    "Expected use of the fullest link of the bus, as a share of its capacity; new sessions get 503 "
    "if one more would raise it above LINK_UTILISATION_MAX",
)
BUS_RECEIVED = Counter(
    "asr_gateway_bus_messages_received_total", "Messages from the broker, by kind", ["kind"]
)
BUS_SENT = Counter(
    "asr_gateway_bus_messages_sent_total", "Messages to the broker, by kind", ["kind"]
)
BUS_DROPPED = Counter(
    "asr_gateway_bus_messages_dropped_total",
    "Messages to or from the broker that were discarded, by reason",
    ["reason"],
)

# ------------------------------------------------------------------------------------------ storage

OUTBOX = Gauge("asr_gateway_outbox_records", "Records sent and not confirmed as stored")
OUTBOX_MAX = Gauge(
    "asr_gateway_outbox_records_max",
    "OUTBOX_RECORDS_MAX: new sessions are refused while this many records wait",
)
OUTBOX_AGE = Gauge(
    "asr_gateway_outbox_age_seconds", "How long the oldest unconfirmed record has waited"
)
STORE_SECONDS = Histogram(
    "asr_gateway_store_seconds",
    "From a record's or a result's arrival in the outbox to the confirmation of its commit",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
SPOOLED = Counter(
    "asr_gateway_spooled_records_total",
    "Records read from the spool at start, or written to it at exit",
    ["direction"],
)
SPOOL_DROPPED = Counter(
    "asr_gateway_spool_dropped_records_total",
    "Records that could not be written to the spool and are lost, by reason",
    ["reason"],
)
SPOOL_DAMAGED = Counter(
    "asr_gateway_spool_damaged_files_total", "Spool files renamed because they are damaged"
)
REDIS_UP = Gauge("asr_gateway_redis_up", "1: the last call to Redis succeeded")
REDIS_FAILURES = Counter(
    "asr_gateway_redis_failures_total", "Calls to Redis that failed or timed out, by call", ["call"]
)


@functools.cache
def bus_received(kind: type) -> Counter:
    """The counter of received messages of this class. Cached: the bus is a hot path."""
    return BUS_RECEIVED.labels(kind.__name__)


@functools.cache
def bus_sent(kind: type) -> Counter:
    return BUS_SENT.labels(kind.__name__)


def count_problem(code: str) -> None:
    """Count an error answer to a client."""
    PROBLEMS.labels(code if code in PROBLEM_CODES else "other").inc()


def show_workers_needed(needed: Mapping[str, float]) -> None:
    """Export the workers that each model needs. One that is missing has no series from now on."""
    keep_only(WORKERS_NEEDED, needed)
    for model, workers in needed.items():
        WORKERS_NEEDED.labels(model).set(workers)


def show_limits(*, est_wait_ms_max: int, outbox_records_max: int) -> None:
    """Export the settings that alerts compare with."""
    WAIT_MAX.set(est_wait_ms_max / 1000)
    OUTBOX_MAX.set(outbox_records_max)


def _show_zeros() -> None:
    """Create the series that alerts watch. To Prometheus, a series that appears with the value 1
    has not increased."""
    for counter, labels in (
        (REFUSED, REFUSAL_CODES),
        (PROBLEMS, PROBLEM_CODES),
        (SESSIONS, ("started", "ended", "moved", "deleted")),
        (SESSIONS, ("id_refused", "resumed", "resume_refused")),
        (SPOOL_DROPPED, ("disk", "full")),
        (BUS_DROPPED, ("send_queue_full", "no_broker", "not_a_message", "unexpected_kind")),
        (BUS_DROPPED, ("version_refused", "system_refused", "wrong_endpoint")),
        (RESULTS_DISCARDED, ("no_session", "unknown_segment", "stale_generation")),
        (RESULTS_DISCARDED, ("repeated", "overloaded", "late_partial")),
        (RESULTS_DISCARDED, ("partial_without_text",)),
        (EMBEDDINGS_DISCARDED, ("invalid", "dimension")),
        (ANSWERS_DISCARDED, ("client_away", "displaced", "slow_client", "closing")),
        (BAD_REQUESTS, ("not_http", "invalid")),
        (
            INPUT_IGNORED,
            ("behind_the_end", "inside_a_recording", "refused_start", "too_many_waiting"),
        ),
        (SEGMENT_SECONDS, ("live", "bulk")),
        (FINISH_SECONDS, ("live", "bulk")),
    ):
        for label in labels:
            counter.labels(label)


_show_zeros()
