"""Metrics of a worker. ``service`` and ``inference`` update them; the cores return counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

JOBS_DISCARDED = Counter(
    "asr_worker_jobs_discarded_total", "Jobs dropped without a result, by reason", ["reason"]
)
FRAMES_REJECTED = Counter(
    "asr_worker_frames_rejected_total",
    "Messages that are malformed or not for workers, by reason",
    ["reason"],
)
MESSAGES_UNSENT = Counter(
    "asr_worker_messages_unsent_total",
    "Messages dropped because the send queue was full, by kind",
    ["kind"],
)
MODEL = Gauge(
    "asr_worker_model_info", "Always 1; labelled with model and device", ["model", "device"]
)
LOAD_SECONDS = Gauge("asr_worker_model_load_seconds", "Duration of loading the model")
QUEUED = Gauge("asr_worker_queued_jobs", "Jobs waiting for a batch")
RECOGNITIONS = Counter(
    "asr_worker_recognitions_total", "Utterances processed, by outcome", ["outcome"]
)
PUNCTUATION_FAILURES = Counter(
    "asr_worker_punctuation_failures_total", "Texts whose punctuation failed: they have no marks"
)
AUDIO_SECONDS = Counter("asr_worker_audio_seconds_total", "Audio recognised")
BATCH_SIZE = Histogram(
    "asr_worker_batch_size",
    "Utterances per batch, partials included",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
BATCH_SECONDS = Histogram(
    "asr_worker_batch_seconds",
    "Inference time per batch",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)

# A series that first appears with 1 shows no increase: those used by alerts are created at start.
for _outcome in ("text", "failure"):
    RECOGNITIONS.labels(_outcome)
for _reason in ("duplicate", "old_epoch", "forgotten", "draining", "over_credit", "superseded"):
    JOBS_DISCARDED.labels(_reason)
for _reason in (
    "malformed",
    "not_for_workers",
    "version_refused",
    "system_refused",
    "wrong_endpoint",
):
    FRAMES_REJECTED.labels(_reason)
