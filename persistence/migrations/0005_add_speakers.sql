-- Speakers of segments, for sessions that ask for them.

CREATE TABLE asr_speakers (
    session_id    text NOT NULL REFERENCES asr_sessions ON DELETE CASCADE,
    segment_index bigint NOT NULL,
    -- Counts from 1 in order of appearance; 0: unknown.
    speaker       bigint NOT NULL,
    -- Of the record that holds it: labels may be corrected at the end of a session.
    generation    bigint NOT NULL,
    record_seq    bigint NOT NULL,
    PRIMARY KEY (session_id, segment_index)
);

-- Voice prints, for another gateway that takes the session over. Deleted when it ends.
CREATE TABLE asr_speaker_centroids (
    session_id text PRIMARY KEY REFERENCES asr_sessions ON DELETE CASCADE,
    centroids  jsonb NOT NULL,
    generation bigint NOT NULL,
    record_seq bigint NOT NULL
);
