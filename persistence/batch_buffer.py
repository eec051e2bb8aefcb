"""SANS-IO: what was published and is not yet committed; batches of it; what to confirm.

Publications may be lost, repeated and reordered. What is lost is sent again by its gateway until
it is confirmed, so dropping one at a limit costs time, never data.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from wire import publication
from wire.codec import WireError
from wire.messages import PublishedRecord, Stored, StoredKey
from wire.records import ChunkDetails, RecordBody, parse_body, segment_copy

SESSION_ID_CHARS_MAX = 128
STORED_KEYS_MAX = 1_000
"""Per STORED message, so that its header stays below ``wire.codec.HEADER_BYTES_MAX``."""

Discard = Literal["bad_message", "bad_session_id", "repeated", "backlog_full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a batch is written, and how much may wait."""

    batch_rows_max: int
    batch_wait_s: float
    """A batch not full by then, counted from its oldest row, is written as it is."""
    pending_rows_max: int
    """Beyond this, or beyond ``pending_bytes_max``, what newly arrives is dropped, unless nothing
    else waits."""
    pending_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One publication to be written."""

    gateway_id: str
    """Who is to be told of the COMMIT."""
    key: StoredKey
    body: RecordBody
    byte_count: int
    """Its size on the bus."""
    received_s: float

    @property
    def session_id(self) -> str:
        return self.key.session_id

    @property
    def generation(self) -> int:
        return self.key.generation

    @property
    def from_gateway(self) -> bool:
        """It tells what its gateway has told its client; a result tells what the broker sent to
        the gateway, which may have been lost on the way."""
        return self.key.kind == "record"

    @property
    def rows(self) -> int:
        # At least 1, so that records of no chunks count towards the limits too.
        return max(1, len(self.body.chunks)) if isinstance(self.body, ChunkDetails) else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """What became of a publication."""

    discarded: Discard | None = None
    lost: int = 0
    """Publications missing in the broker's sequence before this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Entries for one transaction; give it to ``committed`` after COMMIT."""

    entries: tuple[Entry, ...]


class BatchBuffer:
    """Call ``receive`` for each publication, ``take_batch`` whenever the writer is free, and
    ``committed`` after each COMMIT. An entry leaves the backlog only then."""

    def __init__(self, limits: Limits) -> None:
        self.rows = 0
        """Received and not committed, batches being written included."""
        self.bytes = 0
        self._limits = limits
        self._pending: deque[Entry] = deque()
        self._pending_rows = 0
        # With the gateway: a resumed session's new gateway counts its records from 0 again.
        self._known: set[tuple[str, StoredKey]] = set()
        self._epoch: str | None = None
        self._next_sequence = 0

    def receive(self, frames: Sequence[bytes], now_s: float) -> Reception:
        """Take one publication as the SUB socket received it."""
        try:
            sequence, message = publication.decode(frames)
            key, body = _content(message)
        except WireError:
            return Reception(discarded="bad_message")
        lost = self._lost_before(message.broker_epoch, sequence)
        if not 1 <= len(key.session_id) <= SESSION_ID_CHARS_MAX or "\0" in key.session_id:
            return Reception(discarded="bad_session_id", lost=lost)
        if (message.gateway_id, key) in self._known:
            return Reception(discarded="repeated", lost=lost)
        entry = Entry(
            gateway_id=message.gateway_id,
            key=key,
            body=body,
            byte_count=sum(map(len, frames)),
            received_s=now_s,
        )
        if not self._has_room_for(entry):
            return Reception(discarded="backlog_full", lost=lost)
        self._known.add((entry.gateway_id, key))
        self._pending.append(entry)
        self._pending_rows += entry.rows
        self.rows += entry.rows
        self.bytes += entry.byte_count
        return Reception(lost=lost)

    def batch_due_s(self) -> float | None:
        """When ``take_batch`` will give one; None: when more arrives."""
        if not self._pending:
            return None
        if self._pending_rows >= self._limits.batch_rows_max:
            return self._pending[0].received_s
        return self._pending[0].received_s + self._limits.batch_wait_s

    def take_batch(self, now_s: float, *, draining: bool = False) -> Batch | None:
        """The next batch, if it is full or has waited long enough; ``draining`` waits for
        neither. A single entry of more rows than a batch may have is a batch of its own."""
        due_s = self.batch_due_s()
        if due_s is None or (now_s < due_s and not draining):
            return None
        entries: list[Entry] = []
        rows = 0
        while self._pending and (
            not entries or rows + self._pending[0].rows <= self._limits.batch_rows_max
        ):
            entry = self._pending.popleft()
            entries.append(entry)
            rows += entry.rows
        self._pending_rows -= rows
        return Batch(entries=tuple(entries))

    def committed(self, batch: Batch, superseded: Iterable[Entry] = ()) -> list[Stored]:
        """Forget ``batch``, which is committed, except for ``superseded`` ones of it, which the
        database dropped. Returns the confirmations to send."""
        dropped = {(entry.gateway_id, entry.key) for entry in superseded}
        keys: defaultdict[str, list[StoredKey]] = defaultdict(list)
        for entry in batch.entries:
            self._known.discard((entry.gateway_id, entry.key))
            self.rows -= entry.rows
            self.bytes -= entry.byte_count
            keys[entry.gateway_id].append(entry.key)
        return [
            Stored(
                gateway_id=gateway_id,
                keys=some,
                superseded=tuple(
                    place for place, key in enumerate(some) if (gateway_id, key) in dropped
                ),
            )
            for gateway_id, of_one in keys.items()
            for i in range(0, len(of_one), STORED_KEYS_MAX)
            if (some := tuple(of_one[i : i + STORED_KEYS_MAX]))
        ]

    def _has_room_for(self, entry: Entry) -> bool:
        # What is more than the limits alone goes when nothing else waits: dropped, it would be
        # sent again and dropped again for ever.
        return not self.rows or (
            self.rows + entry.rows <= self._limits.pending_rows_max
            and self.bytes + entry.byte_count <= self._limits.pending_bytes_max
        )

    def _lost_before(self, epoch: str, sequence: int) -> int:
        # The first publication of an epoch tells nothing: we may have subscribed in the middle.
        expected = self._next_sequence if epoch == self._epoch else sequence
        self._epoch = epoch
        self._next_sequence = sequence + 1
        return max(0, sequence - expected)


def _content(message: publication.Publication) -> tuple[StoredKey, RecordBody]:
    if isinstance(message, PublishedRecord):
        return message.record.key, parse_body(message.record.body)
    result = message.result
    if result.partial:
        raise WireError("a partial result is not to be stored")
    return result.key, segment_copy(result)
