-- Fields that a model may detect for a segment.

ALTER TABLE asr_segments
    -- The detected language; empty if the model detects none.
    ADD language   text NOT NULL DEFAULT '',
    -- The model's estimate, from 0 to 1, that the text is right; null if it has none.
    ADD confidence double precision;
