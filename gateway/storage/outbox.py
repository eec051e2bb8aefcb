"""SANS-IO: everything of this gateway that is to be stored, kept until persistence says STORED.

Results are published by the broker itself; only when one is not confirmed in time is a copy of it
sent from here. Records are sent from here at once. Both are sent again with back-off until they
are confirmed, so that no process between us and PostgreSQL needs a journal.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from gateway.telemetry.metrics import STORE_SECONDS
from wire.messages import Record, Result, StoredKey, StoredKind
from wire.records import RESUMED_RECORD_SEQ, segment_copy, to_body

RESEND_INITIAL_S = 3.0
RESEND_MAX_S = 15.0
RESENDS_PER_TICK_MAX = 500
"""The rest waits for the next tick: a long outage's backlog must not flood the bus at once."""
SEGMENT_COPY_SEQ_OFFSET = 1 << 30
"""record_seq of a segment's copy is this plus its seq, apart from the session's own records."""

Key = tuple[StoredKind, str, int, int]
"""Kind, session, number, generation."""


@dataclass(slots=True)
class _Unconfirmed:
    record: Record
    since_s: float
    resend_s: float
    contested: bool


class Outbox:
    """What awaits STORED. ``limit`` is where ``full`` says that no new session may begin."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[Key, _Unconfirmed] = {}
        self._due: list[tuple[float, int, Key]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """At the limit: admitted sessions still put their records here, new ones are refused."""
        return len(self._waiting) >= self._limit

    def age_s(self, now_s: float) -> float:
        """How long the oldest has waited; 0 when nothing waits."""
        oldest = next(iter(self._waiting.values()), None)
        return 0.0 if oldest is None else max(0.0, now_s - oldest.since_s)

    def put_record(self, record: Record, now_s: float) -> None:
        """Keep ``record``, which the caller sends now."""
        self._put(_known(record.key), record, now_s)

    def restore(self, record: Record, now_s: float) -> None:
        """Keep a record of a gateway that has ended; it is due at once."""
        self._put(_known(record.key), record, now_s, wait_s=0.0)

    def records(self) -> list[Record]:
        """Everything that is not confirmed."""
        return [entry.record for entry in self._waiting.values()]

    def put_result(self, result: Result, now_s: float, *, contested: bool = False) -> Record:
        """Keep a copy of a result that the broker has published, and return it. ``contested``:
        something else may be published for this segment, too, so that only the copy counts; the
        caller sends it now."""
        record = Record(
            session_id=result.session_id,
            record_seq=SEGMENT_COPY_SEQ_OFFSET + result.seq,
            body=to_body(segment_copy(result)),
            generation=result.generation,
        )
        key = _known(record.key)
        if contested:
            self._waiting.pop(key, None)
        self._put(key, record, now_s, contested=contested)
        return record

    def confirm(self, keys: Iterable[StoredKey], now_s: float) -> list[StoredKey]:
        """Forget what is committed. Returns the keys as sessions know them: a segment's copy is
        that segment's result."""
        confirmed = []
        for key in keys:
            known = _known(key)
            entry = self._waiting.get(known)
            if entry is not None and entry.contested and key.kind == "result":
                continue  # What was published; the copy is still to come.
            if entry is not None:
                del self._waiting[known]
                STORE_SECONDS.observe(now_s - entry.since_s)
            kind, session_id, seq, generation = known
            confirmed.append(
                StoredKey(session_id=session_id, kind=kind, seq=seq, generation=generation)
            )
        return confirmed

    def forget_session(self, session_id: str) -> int:
        """The session was deleted: nothing of it is to be stored. Returns how many were dropped."""
        keys = [key for key in self._waiting if key[1] == session_id]
        for key in keys:
            del self._waiting[key]
        return len(keys)

    def due(self, now_s: float) -> list[Record]:
        """Records to send again now."""
        records: list[Record] = []
        while self._due and self._due[0][0] <= now_s and len(records) < RESENDS_PER_TICK_MAX:
            _, _, key = heapq.heappop(self._due)
            entry = self._waiting.get(key)
            if entry is None:
                continue
            records.append(entry.record)
            entry.resend_s = min(RESEND_MAX_S, entry.resend_s * 2)
            heapq.heappush(self._due, (now_s + entry.resend_s, next(self._order), key))
        return records

    def _put(
        self,
        key: Key,
        record: Record,
        now_s: float,
        *,
        wait_s: float = RESEND_INITIAL_S,
        contested: bool = False,
    ) -> None:
        if key in self._waiting:
            return
        self._waiting[key] = _Unconfirmed(record, now_s, RESEND_INITIAL_S, contested)
        heapq.heappush(self._due, (now_s + wait_s, next(self._order), key))


def _known(key: StoredKey) -> Key:
    """A segment's copy goes by the name of its result."""
    if key.kind == "record" and SEGMENT_COPY_SEQ_OFFSET <= key.seq < RESUMED_RECORD_SEQ:
        return "result", key.session_id, key.seq - SEGMENT_COPY_SEQ_OFFSET, key.generation
    return key.kind, key.session_id, key.seq, key.generation
