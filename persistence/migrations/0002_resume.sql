-- Sessions that continue at another gateway, and statuses of sessions without a stored end.

ALTER TABLE asr_sessions
    -- Number of times that another gateway has taken the session over. Records of an older
    -- generation are not written.
    ADD generation        bigint NOT NULL DEFAULT 0,
    -- The gateway that took it over last, and when.
    ADD gateway_id        text NOT NULL DEFAULT '',
    ADD resumed_at        timestamptz,
    -- SHA-256, in hexadecimal, of the token that the client must send to resume.
    ADD resume_token_hash text NOT NULL DEFAULT '',
    DROP CONSTRAINT asr_sessions_status_check,
    ADD CONSTRAINT asr_sessions_status_check
        CHECK (status IN ('active', 'lost', 'interrupted', 'abandoned', 'failed', 'completed',
                          'deleted'));

CREATE INDEX asr_sessions_active ON asr_sessions (created_at) WHERE status = 'active';

ALTER TABLE asr_segments
    ADD generation         bigint NOT NULL DEFAULT 0,
    -- Its audio ends only because the client or the gateway disconnected: a resumed session
    -- recognises it again.
    ADD provisional        boolean NOT NULL DEFAULT false,
    -- The audio after it can be decoded again from this chunk on, which begins at this sample.
    ADD resume_chunk_index bigint NOT NULL DEFAULT 0,
    ADD resume_sample      bigint NOT NULL DEFAULT 0;
