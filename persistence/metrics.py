"""Metrics of persistence."""

from __future__ import annotations

from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from persistence.batch_buffer import Discard
from wire.records import RecordBody

ROWS = Counter("asr_persistence_rows_total", "Rows written, repetitions included", ["kind"])
BATCHES = Counter("asr_persistence_batches_total", "Transactions, by outcome", ["outcome"])
BATCH_SECONDS = Histogram(
    "asr_persistence_batch_seconds",
    "From the first statement to COMMIT",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
BACKLOG_ROWS = Gauge("asr_persistence_backlog_rows", "Rows received and not committed")
BACKLOG_ROWS_MAX = Gauge(
    "asr_persistence_backlog_rows_max", "PERSISTENCE_PENDING_ROWS_MAX: beyond it rows are discarded"
)
BACKLOG_BYTES = Gauge(
    "asr_persistence_backlog_bytes", "Size on the bus of publications received and not committed"
)
STORE_SECONDS = Histogram(
    "asr_persistence_store_seconds",
    "From a publication's arrival to its COMMIT",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300),
)
DISCARDED = Counter(
    "asr_persistence_publications_discarded_total", "Publications not taken, by reason", ["reason"]
)
PUBLICATIONS_LOST = Counter(
    "asr_persistence_publications_lost_total",
    "Publications missing in the broker's sequence; gateways send them again",
)
REJECTED_ROWS = Counter(
    "asr_persistence_rejected_rows_total", "Rows the database refused for their content", ["kind"]
)
TEXTS_CLEANED = Counter(
    "asr_persistence_texts_cleaned_total", "Texts with characters PostgreSQL cannot store"
)
LATE_ROWS = Counter("asr_persistence_late_rows_total", "Rows for sessions deleted before", ["kind"])
STALE_ROWS = Counter(
    "asr_persistence_stale_rows_total",
    "Rows of a session that another gateway has taken over",
    ["kind"],
)
LOST_SESSIONS = Counter(
    "asr_persistence_lost_sessions_total", "Active sessions marked lost: no further record arrived"
)
INDEXED_SESSIONS = Counter(
    "asr_persistence_indexed_sessions_total",
    "Sessions made searchable after they were stored: of older releases, lost, or very long",
)
EXPIRED_SESSIONS = Counter(
    "asr_persistence_expired_sessions_total", "Sessions deleted RETENTION_DAYS after their start"
)
UNSENT = Counter(
    "asr_persistence_messages_unsent_total",
    "STORED messages dropped because the send queue was full",
)
DATABASE_UP = Gauge("asr_persistence_database_up", "1: the last write or connection succeeded")

# A series that first appears with 1 shows no increase: those used by alerts are created at start.
for _reason in get_args(Discard):
    DISCARDED.labels(_reason)
for _body in get_args(RecordBody):
    for _rows in (ROWS, REJECTED_ROWS, LATE_ROWS, STALE_ROWS):
        _rows.labels(_body.__name__)
for _outcome in ("committed", "failed"):
    BATCHES.labels(_outcome)
