"""What a worker counts."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

JOBS_DISCARDED = Counter(
    "asr_worker_jobs_discarded_total", "Jobs dropped without a result, by reason", ["reason"]
)
FRAMES_REJECTED = Counter(
    "asr_worker_frames_rejected_total",
    "Messages that are none of the protocol, by reason",
    ["reason"],
)
MESSAGES_UNSENT = Counter(
    "asr_worker_messages_unsent_total", "Messages that the full bus did not take, by kind", ["kind"]
)
RECOGNITIONS = Counter(
    "asr_worker_recognitions_total", "Utterances answered, by outcome", ["outcome"]
)
AUDIO_SECONDS = Counter("asr_worker_audio_seconds_total", "Audio recognised")
BATCH_SIZE = Histogram(
    "asr_worker_batch_size", "Utterances per batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
BATCH_SECONDS = Histogram(
    "asr_worker_batch_seconds",
    "Time in the model per batch",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
