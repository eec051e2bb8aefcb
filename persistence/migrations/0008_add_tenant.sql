-- The tenant of a session.

ALTER TABLE asr_sessions
    -- Only clients of this tenant may use the session. Empty: its start is not stored yet, or
    -- it is deleted.
    ADD tenant text NOT NULL DEFAULT 'default';

CREATE INDEX asr_sessions_tenant ON asr_sessions (tenant, created_at DESC, id)
    WHERE status <> 'deleted';
