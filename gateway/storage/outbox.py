"""Core: all records of this gateway that persistence has not confirmed yet.

The broker publishes results itself. The outbox keeps a copy of each and sends it only if the result
is not confirmed in time. The caller sends records at once. The outbox returns both for resending,
with backoff, until they are confirmed. Hence no process between gateway and PostgreSQL needs a
journal.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from msgspec.structs import replace

from wire.messages import Record, Result, StoredKey
from wire.records import RESUMED_RECORD_SEQ, segment_copy, to_body

RESEND_INITIAL_S = 3.0
RESEND_MAX_S = 15.0
RESENDS_PER_TICK_MAX = 500
"""The rest waits for the next tick, so that the backlog of a long outage does not flood the bus."""
SEGMENT_COPY_SEQ_OFFSET = 1 << 30
"""The record_seq of a segment's copy is this plus the segment's seq. The session's own records have
lower numbers."""


@dataclass(slots=True)
class _Unconfirmed:
    record: Record
    since_s: float
    contested: bool
    resend_s: float = 2 * RESEND_INITIAL_S
    """Time from the next resend to the one after it."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A key that is stored, and how long it was in the outbox; None if it was not."""

    key: StoredKey
    waited_s: float | None


class Outbox:
    """Records and copies of results, each until ``confirm``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[StoredKey, _Unconfirmed] = {}
        self._due: list[tuple[float, int, StoredKey]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether ``limit`` is reached. The caller then refuses new sessions; admitted ones still
        add records."""
        return len(self._waiting) >= self._limit

    def age_s(self, now_s: float) -> float:
        """Age of the oldest record, 0 if there is none."""
        oldest = next(iter(self._waiting.values()), None)
        return 0.0 if oldest is None else max(0.0, now_s - oldest.since_s)

    def put_record(
        self,
        record: Record,
        now_s: float,
        *,
        wait_s: float = RESEND_INITIAL_S,
        contested: bool = False,
    ) -> None:
        """Add a record, which is due in ``wait_s``. ``contested``: see ``put_result``."""
        key = _known(record.key)
        if key in self._waiting:
            return
        self._waiting[key] = _Unconfirmed(record, now_s, contested)
        heapq.heappush(self._due, (now_s + wait_s, next(self._order), key))

    def records(self) -> list[Record]:
        """All unconfirmed records."""
        return [entry.record for entry in self._waiting.values()]

    def put_result(self, result: Result, now_s: float, *, contested: bool = False) -> Record:
        """Add and return a copy of a result that the broker has published.

        ``contested``: another result may be published for the same segment, so only the copy's own
        confirmation counts. The caller sends the copy now.
        """
        record = Record(
            session_id=result.session_id,
            record_seq=SEGMENT_COPY_SEQ_OFFSET + result.seq,
            body=to_body(segment_copy(result)),
            generation=result.generation,
        )
        if contested:
            self._waiting.pop(result.key, None)
        self.put_record(record, now_s, contested=contested)
        return record

    def confirm(self, keys: Iterable[StoredKey], now_s: float) -> list[Confirmed]:
        """Remove committed records. In the returned keys, the key of a segment's copy is replaced
        by that of its result, which sessions know."""
        confirmed = []
        for key in keys:
            known = _known(key)
            entry = self._waiting.get(known)
            if entry is None:
                confirmed.append(Confirmed(known, None))
            elif not entry.contested or key.kind == "record":
                del self._waiting[known]
                confirmed.append(Confirmed(known, now_s - entry.since_s))
            # Otherwise the published result was stored, and its copy is not confirmed yet.
        return confirmed

    def forget_session(self, session_id: str) -> None:
        """Remove the records of a deleted session."""
        for key in [key for key in self._waiting if key.session_id == session_id]:
            del self._waiting[key]

    def due(self, now_s: float) -> list[Record]:
        """Records to resend now, ``RESENDS_PER_TICK_MAX`` at most."""
        records: list[Record] = []
        while self._due and self._due[0][0] <= now_s and len(records) < RESENDS_PER_TICK_MAX:
            _, _, key = heapq.heappop(self._due)
            if (entry := self._waiting.get(key)) is not None:
                records.append(entry.record)
                heapq.heappush(self._due, (now_s + entry.resend_s, next(self._order), key))
                entry.resend_s = min(RESEND_MAX_S, entry.resend_s * 2)
        return records

    def resend_all(self, now_s: float) -> None:
        """Make all records due at once, oldest first, and restart their backoff. Call it when
        records in transit may have been lost and can reach persistence again."""
        for entry in self._waiting.values():
            entry.resend_s = RESEND_INITIAL_S
        self._due = [(now_s, next(self._order), key) for key in self._waiting]


def _known(key: StoredKey) -> StoredKey:
    """``key``, or the result's key if it is that of a segment's copy."""
    if key.kind == "record" and SEGMENT_COPY_SEQ_OFFSET <= key.seq < RESUMED_RECORD_SEQ:
        return replace(key, kind="result", seq=key.seq - SEGMENT_COPY_SEQ_OFFSET)
    return key
