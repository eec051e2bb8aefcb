"""What the broker counts, and shows of its state once a second."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from wire.messages import Load

INCIDENTS = Counter(
    "asr_broker_incidents_total", "What was dropped, refused or lost, by reason", ["reason"]
)
RECEIVED = Counter("asr_broker_received_total", "Messages received, by socket", ["socket"])
PUBLISHED = Counter("asr_broker_published_total", "Results and records given to subscribers")

_QUEUED = Gauge("asr_broker_queued_jobs", "Jobs waiting for a worker")
_QUEUED_AUDIO = Gauge("asr_broker_queued_audio_seconds", "Audio waiting for a worker")
_IN_FLIGHT = Gauge("asr_broker_in_flight_jobs", "Jobs with a worker")
_FAILED = Gauge("asr_broker_failed_jobs", "Jobs that ended with an error in this broker's life")
_WORKERS = Gauge("asr_broker_workers", "Workers that take jobs")
_WORKERS_BUSY = Gauge("asr_broker_workers_busy", "Workers that hold jobs")
_THROUGHPUT = Gauge("asr_broker_throughput_x", "Seconds of audio per second, all workers")
_ARRIVING = Gauge("asr_broker_arriving_x", "Seconds of live audio accepted per second")
_EST_WAIT = Gauge("asr_broker_est_wait_seconds", "Estimated wait of a job that comes now")


def show(load: Load) -> None:
    _QUEUED.set(load.queued)
    _QUEUED_AUDIO.set(load.queued_audio_ms / 1000)
    _IN_FLIGHT.set(load.in_flight)
    _FAILED.set(load.failed_total)
    _WORKERS.set(load.workers)
    _WORKERS_BUSY.set(load.workers_busy)
    _THROUGHPUT.set(load.throughput_x)
    _ARRIVING.set(load.arriving_x)
    _EST_WAIT.set(load.est_wait_ms / 1000)
