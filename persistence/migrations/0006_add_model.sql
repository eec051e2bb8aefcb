-- The model of a session.

ALTER TABLE asr_sessions
    -- The served name; empty: stored by a release without models.
    ADD model text NOT NULL DEFAULT '';
