"""Prometheus metrics of the broker. Only the adapter uses them; the core returns ``Count``."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from broker.events import Answered
from runtime.metrics import keep_only
from wire.messages import Load

INCIDENTS = Counter(
    "asr_broker_incidents_total", "Messages dropped, refused or lost, by reason", ["reason"]
)
RECEIVED = Counter("asr_broker_messages_received_total", "Messages received, by socket", ["socket"])
PUBLISHED = Counter("asr_broker_publications_total", "Results and records sent to subscribers")
ANSWERS = Counter(
    "asr_broker_answers_total",
    "Utterances answered, by lane and outcome (text, or the error code), without partials",
    ["lane", "outcome"],
)
QUEUE_SECONDS = Histogram(
    "asr_broker_queue_seconds",
    "Time from arrival to the start of the answered attempt, by lane, without partials",
    ["lane"],
    buckets=(0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 30, 60, 300),
)
KEYS_REFUSED = Counter(
    "asr_broker_refused_keys_total",
    "Connections refused for their CURVE key, by socket",
    ["socket"],
)
HANDSHAKES_FAILED = Counter(
    "asr_broker_failed_handshakes_total",
    "Connections that ended before a key was seen, of peers without keys or with another key of "
    "the broker, and of programs that are no peers, by socket",
    ["socket"],
)
REDIS_FAILURES = Counter("asr_broker_redis_failures_total", "Queue counters not written to Redis")

_QUEUED = Gauge("asr_broker_queued_jobs", "Jobs waiting for a worker")
_QUEUED_AUDIO = Gauge("asr_broker_queued_audio_seconds", "Audio waiting for a worker")
_IN_FLIGHT = Gauge("asr_broker_in_flight_jobs", "Jobs assigned to workers")
_WORKERS = Gauge("asr_broker_workers", "Workers that take jobs")
_WORKERS_BUSY = Gauge("asr_broker_busy_workers", "Workers that hold jobs")
_GATEWAYS = Gauge("asr_broker_gateways", "Gateways with a lease")
_THROUGHPUT = Gauge(
    "asr_broker_throughput_ratio", "Measured seconds of audio that all workers recognise per second"
)
_ARRIVING = Gauge("asr_broker_arriving_ratio", "Measured live audio that arrives per second")
_EST_WAIT = Gauge(
    "asr_broker_expected_wait_seconds", "Expected wait of a live job that arrives now"
)

_LINK_CAPACITY = Gauge(
    "asr_broker_link_bytes_per_second",
    "Capacity of all links to workers together, in bytes of audio per second, measured while they "
    "are full; 0: they never were",
)

_MODEL_WORKERS = Gauge(
    "asr_broker_model_workers", "Workers that take jobs of a model, by its served name", ["model"]
)
_MODEL_QUEUED = Gauge(
    "asr_broker_model_queued_audio_seconds",
    "Audio waiting for the workers of a model, by its served name",
    ["model"],
)
_MODEL_WAIT = Gauge(
    "asr_broker_model_expected_wait_seconds",
    "Expected wait of a live job that arrives now, by the served name of its model",
    ["model"],
)
_MODEL_THROUGHPUT = Gauge(
    "asr_broker_model_throughput_ratio",
    "Measured seconds of audio that a model's workers recognise per second, by its served name",
    ["model"],
)
_MODEL_ARRIVING = Gauge(
    "asr_broker_model_arriving_ratio",
    "Measured live audio that arrives per second for a model, by its served name",
    ["model"],
)
_BY_MODEL = (_MODEL_WORKERS, _MODEL_QUEUED, _MODEL_WAIT, _MODEL_THROUGHPUT, _MODEL_ARRIVING)

WATCHED = (
    *("worker_lease_ended", "worker_unreachable", "attempt_deadline", "worker_quarantined"),
    *("front_malformed", "back_malformed", "front_unexpected", "back_unexpected"),
    *("identity_mismatch", "bad_ready", "unheld_result", "version_refused"),
    *("system_refused", "refused_gateway"),
    *("subscriber_full", "no_subscriber", "unsent_result", "unsent_workerjob", "unsent_stored"),
)
"""Incidents with an alert. Their series exist from the start, so that the first one is visible."""
USUAL = frozenset(
    {
        *("partial_superseded", "partial_late", "partial_overloaded", "partial_expired"),
        *("partial_lost", "cancelled"),
    }
)
"""Incidents of normal work, which are counted and not logged: a partial result that a later one or
the final one replaces, or for which there is no spare capacity; jobs of a session that was deleted
or left."""
_OUTCOMES = frozenset({"text", "chunk_failed", "deadline", "recognition_failed"})
"""Outcomes with series of their own. Others count as ``other``: a worker can send any code."""

BY_A_WORKER = frozenset({"text", "recognition_failed"})
"""Outcomes that a worker's answer leads to. For the others no waiting time is defined."""

_LANES = ("live", "bulk")
_answers = {(lane, o): ANSWERS.labels(lane, o) for lane in _LANES for o in (*_OUTCOMES, "other")}
_waits = {lane: QUEUE_SECONDS.labels(lane) for lane in _LANES}


def count_answer(answered: Answered) -> None:
    outcome = answered.outcome if answered.outcome in _OUTCOMES else "other"
    _answers[answered.lane, outcome].inc()
    if outcome in BY_A_WORKER:
        _waits[answered.lane].observe(answered.queue_ms / 1000)


def set_gauges(load: Load) -> None:
    _QUEUED.set(load.queued)
    _QUEUED_AUDIO.set(load.queued_audio_ms / 1000)
    _IN_FLIGHT.set(load.in_flight)
    _WORKERS.set(load.workers)
    _WORKERS_BUSY.set(load.workers_busy)
    _GATEWAYS.set(load.gateways)
    _THROUGHPUT.set(load.throughput_rtfx)
    _ARRIVING.set(load.arriving_audio_rate)
    _EST_WAIT.set(load.est_wait_ms / 1000)
    _LINK_CAPACITY.set(load.workers_link_rate)
    for model in load.served:
        _MODEL_WORKERS.labels(model.name).set(model.workers)
        _MODEL_QUEUED.labels(model.name).set(model.queued_audio_ms / 1000)
        _MODEL_WAIT.labels(model.name).set(model.est_wait_ms / 1000)
        _MODEL_THROUGHPUT.labels(model.name).set(model.throughput_rtfx)
        _MODEL_ARRIVING.labels(model.name).set(model.arriving_audio_rate)
    served = {model.name for model in load.served}
    for gauge in _BY_MODEL:
        keep_only(gauge, served)


for _reason in WATCHED:
    # To Prometheus, a series that appears with the value 1 has not increased.
    INCIDENTS.labels(_reason)
