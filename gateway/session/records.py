"""SANS-IO: what one session wants stored, as records, and what of it is not confirmed yet."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Literal

from gateway.session.events import Start
from gateway.session.resume import token_hash
from wire.messages import Record, Result, StoredKey
from wire.records import (
    TRANSCRIPT_BYTES_MAX,
    ChunkDetail,
    ChunkDetails,
    RecordBody,
    SessionFinished,
    SessionStarted,
    SessionStatus,
    to_body,
)

Gone = Literal["abandoned", "interrupted"]
"""Why a session ends without its client's finish: client, or gateway, went away."""
CHUNK_DETAILS_PER_RECORD = 50
"""The first record of a session is shorter, by its id: the sessions of a crowd that began together
would all send their rows at once, and everybody's texts would wait for the database's processor."""


class SessionRecords:
    """Numbers a session's records from 0, in each generation. ``complete`` once everything named
    here is stored."""

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
        return not self._unstored

    def started(
        self, start: Start, *, client: str, started_at_ms: int, resume_token: str
    ) -> list[Record]:
        """A session that begins anew in a later generation replaces what is stored of it. That
        waits for the first chunk: its client may be gone for good by now."""
        self._started = SessionStarted(
            user_id=start.user_id,
            client=client,
            mode=start.mode,
            language=start.language,
            started_at_ms=started_at_ms,
            resume_token_hash=token_hash(resume_token),
        )
        self._held = [self._record(self._started)]
        return [] if self._generation else self._release()

    def chunk(self, detail: ChunkDetail) -> list[Record]:
        """Take note of a chunk; details go out many at a time."""
        self._chunks.append(detail)
        enough = len(self._chunks) >= self._chunks_enough
        return [*self._release(), *(self._chunk_details() if enough else ())]

    def expect_result(self, seq: int) -> None:
        """Segment ``seq`` will be published by the broker and is to be stored as well."""
        self._unstored.add(("result", seq))

    def finished(
        self,
        results: Iterable[Result],
        *,
        gone: Gone | None,
        text: str,
        duration_ms: int,
        chunk_count: int,
        completed_at_ms: int,
    ) -> list[Record]:
        """The last records: chunk details not sent yet, and the session's end."""
        errors = [result.error for result in results]
        failures = [error for error in errors if error is not None]
        status: SessionStatus = "completed"
        if gone is not None:
            status = gone
        elif failures and len(failures) == len(errors):
            status = "failed"
        ending = SessionFinished(
            status=status,
            text=text if len(text.encode()) <= TRANSCRIPT_BYTES_MAX else None,
            duration_ms=duration_ms,
            chunk_count=chunk_count,
            segment_count=len(errors),
            completed_at_ms=completed_at_ms,
            failure=failures[0] if failures else None,
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
