-- Search in the texts of sessions.

ALTER TABLE asr_sessions
    -- Terms of its text (persistence/search_terms.py); null: not indexed yet. Written with the
    -- session's end, or by persistence/chores.py.
    ADD terms tsvector;

-- Each search reads the whole list of pending entries, so that is kept short.
CREATE INDEX asr_sessions_terms ON asr_sessions USING gin (terms)
    WITH (gin_pending_list_limit = 256);

CREATE INDEX asr_sessions_not_indexed ON asr_sessions (id)
    WHERE terms IS NULL AND status NOT IN ('active', 'deleted');

CREATE INDEX asr_sessions_user ON asr_sessions (user_id, created_at DESC, id)
    WHERE status <> 'deleted';

CREATE INDEX asr_sessions_unusual ON asr_sessions (status, created_at DESC, id)
    WHERE status NOT IN ('completed', 'deleted');
