-- Further fields that a model may recognise in a segment.

ALTER TABLE asr_segments
    -- The speaker's emotion; empty if the model recognises none.
    ADD emotion text NOT NULL DEFAULT '',
    -- Sounds besides speech, an array of names.
    ADD events  jsonb NOT NULL DEFAULT '[]';
