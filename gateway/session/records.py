"""Core: the records of one session, and its rows that are not confirmed yet."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Literal

from gateway.session.events import Start
from gateway.session.resume import token_hash
from wire.messages import Failure, Record, Result, StoredKey
from wire.records import (
    TRANSCRIPT_BYTES_MAX,
    ChunkDetail,
    ChunkDetails,
    RecordBody,
    SessionFinished,
    SessionStarted,
    SessionStatus,
    SpeakerCentroid,
    SpeakerLabels,
    to_body,
)

EarlyEnd = Literal["abandoned", "interrupted"]
"""A session that ends without its client's finish: the client did not resume, or the gateway
stopped."""
CHUNK_DETAILS_PER_RECORD = 50
"""The first record of a session has fewer, by its id. Otherwise sessions that began together would
all send their rows at once, and results would wait for the database."""

SPEAKER_LABELS_PER_RECORD_MAX = 4_096


class SessionRecords:
    """Numbers a session's records from 0 in each generation."""

    def __init__(self, session_id: str, generation: int = 0) -> None:
        self._session_id = session_id
        self._generation = generation
        self._next_record_seq = 0
        self._started: SessionStarted | None = None
        self._held: list[Record] = []
        self._unstored: set[tuple[str, int]] = set()
        self._chunks: list[ChunkDetail] = []
        self._chunks_enough = 1 + zlib.crc32(session_id.encode()) % CHUNK_DETAILS_PER_RECORD

    @property
    def complete(self) -> bool:
        """Every record and expected result is stored."""
        return not self._unstored

    def started(
        self, start: Start, *, client: str, tenant: str, started_at_ms: int, resume_token: str
    ) -> list[Record]:
        """The first record. In a later generation it replaces the stored session, so it is held
        until the first chunk arrives: the client may never return."""
        self._started = SessionStarted(
            user_id=start.user_id,
            client=client,
            mode=start.mode,
            language=start.language,
            started_at_ms=started_at_ms,
            resume_token_hash=token_hash(resume_token),
            model=start.model,
            tenant=tenant,
        )
        self._held = [self._record(self._started)]
        return [] if self._generation else self._release()

    def chunk(self, detail: ChunkDetail) -> list[Record]:
        """Add a chunk. Details are sent in batches."""
        self._chunks.append(detail)
        enough = len(self._chunks) >= self._chunks_enough
        return [*self._release(), *(self._chunk_details() if enough else ())]

    def speakers(
        self,
        first_segment_index: int,
        labels: Sequence[int],
        centroids: tuple[SpeakerCentroid, ...],
    ) -> list[Record]:
        """Labels of segments, with the speakers' centroids while the session may be resumed."""
        step = SPEAKER_LABELS_PER_RECORD_MAX
        return [
            self._record(
                SpeakerLabels(
                    first_segment_index=first_segment_index + start,
                    speakers=tuple(labels[start : start + step]),
                    centroids=centroids,
                )
            )
            for start in range(0, len(labels), step)
        ]

    def expect_result(self, seq: int) -> None:
        """The broker will publish segment ``seq``, and its row must be stored too."""
        self._unstored.add(("result", seq))

    def finished(
        self,
        results: Iterable[Result],
        *,
        early_end: EarlyEnd | None,
        audio_failure: Failure | None = None,
        text: str,
        duration_ms: int,
        chunk_count: int,
        completed_at_ms: int,
    ) -> list[Record]:
        """The last records: the remaining chunk details and the session's end. With an
        ``audio_failure`` it has failed, even if a part was recognised before."""
        errors = [result.error for result in results]
        first_error = next(filter(None, errors), None)
        failed = audio_failure is not None or (bool(errors) and None not in errors)
        status: SessionStatus = early_end or ("failed" if failed else "completed")
        ending = SessionFinished(
            status=status,
            text=text if len(text.encode()) <= TRANSCRIPT_BYTES_MAX else None,
            duration_ms=duration_ms,
            chunk_count=chunk_count,
            segment_count=len(errors),
            completed_at_ms=completed_at_ms,
            failure=audio_failure or first_error,
            started=self._started,
        )
        return [*self._release(), *self._chunk_details(), self._record(ending)]

    def confirm(self, keys: Iterable[StoredKey]) -> None:
        self._unstored -= {
            (key.kind, key.seq) for key in keys if key.generation == self._generation
        }

    def _release(self) -> list[Record]:
        held, self._held = self._held, []
        return held

    def _chunk_details(self) -> list[Record]:
        if not self._chunks:
            return []
        details = ChunkDetails(chunks=tuple(self._chunks))
        self._chunks.clear()
        self._chunks_enough = CHUNK_DETAILS_PER_RECORD
        return [self._record(details)]

    def _record(self, body: RecordBody) -> Record:
        record = Record(
            session_id=self._session_id,
            record_seq=self._next_record_seq,
            body=to_body(body),
            generation=self._generation,
        )
        self._next_record_seq += 1
        self._unstored.add(("record", record.record_seq))
        return record
