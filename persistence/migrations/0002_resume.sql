-- Sessions that go on elsewhere, and ends that a gateway could not tell.

ALTER TABLE asr_sessions
    -- How often another gateway has taken the session over. What an older generation sends is not
    -- written any more.
    ADD generation        bigint NOT NULL DEFAULT 0,
    -- The gateway that took it over last, and when.
    ADD gateway_id        text NOT NULL DEFAULT '',
    ADD resumed_at        timestamptz,
    -- SHA-256, in hexadecimal, of what the client must show to go on.
    ADD resume_token_hash text NOT NULL DEFAULT '',
    DROP CONSTRAINT asr_sessions_status_check,
    ADD CONSTRAINT asr_sessions_status_check
        CHECK (status IN ('active', 'lost', 'interrupted', 'abandoned', 'failed', 'completed',
                          'deleted'));

CREATE INDEX asr_sessions_active ON asr_sessions (created_at) WHERE status = 'active';

ALTER TABLE asr_segments
    ADD generation         bigint NOT NULL DEFAULT 0,
    -- It ends only because client or gateway went away: a resumed session makes it anew.
    ADD provisional        boolean NOT NULL DEFAULT false,
    -- What follows it can be decoded again from this chunk on, whose audio begins at this sample.
    ADD resume_chunk_index bigint NOT NULL DEFAULT 0,
    ADD resume_sample      bigint NOT NULL DEFAULT 0;
