-- Sessions, their segments and their chunks. Times are wall clock, for people.

CREATE TABLE asr_sessions (
    id            text PRIMARY KEY CHECK (char_length(id) BETWEEN 1 AND 128),
    user_id       text NOT NULL DEFAULT '',
    client        text NOT NULL DEFAULT '',
    mode          text NOT NULL DEFAULT '',
    language      text NOT NULL DEFAULT '',
    status        text NOT NULL DEFAULT 'active'
                  CHECK (status IN ('active', 'abandoned', 'failed', 'completed', 'deleted')),
    -- False: made for a segment or chunk that arrived before its session's first record.
    started       boolean NOT NULL DEFAULT false,
    -- The next four are null until the session has finished.
    text          text,
    duration_ms   bigint,
    chunk_count   bigint,
    segment_count bigint,
    error_code    text,
    error_message text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    completed_at  timestamptz,
    -- The row of a deleted session stays as a tombstone, so that no late record restores it.
    deleted_at    timestamptz
);

CREATE INDEX asr_sessions_newest ON asr_sessions (created_at DESC, id)
    WHERE status <> 'deleted';

CREATE TABLE asr_segments (
    session_id       text NOT NULL REFERENCES asr_sessions ON DELETE CASCADE,
    segment_index    bigint NOT NULL,
    start_ms         bigint NOT NULL,
    end_ms           bigint NOT NULL,
    last_chunk_index bigint NOT NULL,
    -- Either a text or an error.
    text             text,
    error_code       text,
    error_message    text,
    tokens           jsonb NOT NULL DEFAULT '[]',
    worker_id        text NOT NULL,
    attempt          bigint NOT NULL,
    queue_ms         bigint NOT NULL,
    infer_ms         bigint NOT NULL,
    stored_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, segment_index),
    CHECK ((text IS NULL) <> (error_code IS NULL))
);

CREATE TABLE asr_chunks (
    session_id  text NOT NULL REFERENCES asr_sessions ON DELETE CASCADE,
    chunk_index bigint NOT NULL,
    byte_count  bigint NOT NULL,
    offset_ms   bigint NOT NULL,
    duration_ms bigint NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (session_id, chunk_index)
);
