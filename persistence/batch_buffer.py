"""Core: publications that are not committed yet, their batches, and confirmations.

Publications may be lost, repeated and reordered. A gateway sends its data again until that is
confirmed, so a publication dropped at a limit costs time, but no data.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from wire import publication, versions
from wire.codec import WireError
from wire.messages import SESSION_ID_CHARS_MAX, PublishedRecord, Stored, StoredKey
from wire.records import ChunkDetails, RecordBody, SpeakerLabels, parse_body, segment_copy

STORED_KEYS_MAX = 1_000
"""Most keys in one ``Stored``, so that its header stays below ``wire.codec.HEADER_BYTES_MAX``."""

Discard = Literal["foreign_system", "bad_message", "bad_session_id", "repeated", "backlog_full"]


class Limits(Struct, frozen=True, kw_only=True):
    batch_rows_max: int
    batch_wait_s: float
    """An incomplete batch is written once its oldest row is this old."""
    pending_rows_max: int
    """At one of these limits new publications are dropped, unless nothing else is waiting."""
    pending_bytes_max: int


class Entry(Struct, frozen=True, kw_only=True):
    """One publication to be written."""

    gateway_id: str
    """The gateway that gets the confirmation."""
    key: StoredKey
    body: RecordBody
    byte_count: int
    """Its size on the bus."""
    received_s: float
    broker: str = ""
    """The broker that published it, by its place; its gateway is connected to that one."""

    @property
    def session_id(self) -> str:
        return self.key.session_id

    @property
    def generation(self) -> int:
        return self.key.generation

    @property
    def from_gateway(self) -> bool:
        """Whether the gateway sent it: then it has the text that the client received. A published
        result may have been lost on its way to the gateway, and another one delivered."""
        return self.key.kind == "record"

    @property
    def rows(self) -> int:
        # At least 1, so that records without chunks count towards the limits as well.
        match self.body:
            case ChunkDetails(chunks=items) | SpeakerLabels(speakers=items):
                return max(1, len(items))
        return 1


class Reception(Struct, frozen=True, kw_only=True):
    discarded: Discard | None = None
    lost: int = 0
    """Number of publications missing in the broker's sequence before this one."""


Batch: TypeAlias = tuple[Entry, ...]
"""Entries for one transaction."""


class BatchBuffer:
    """Call ``receive`` for each publication, ``take_batch`` whenever the writer is idle, and
    ``committed`` after each COMMIT, which removes the batch from the backlog."""

    def __init__(self, limits: Limits, system_id: str) -> None:
        """Publications of a system with another ``system_id`` are discarded."""
        self._system_id = system_id
        self.rows = 0
        """Rows received and not committed, including those of batches being written."""
        self.bytes = 0
        self._limits = limits
        self._pending: deque[Entry] = deque()
        self._pending_rows = 0
        # With the gateway's id: two gateways may send the same key, such as that of a deletion, and
        # each needs its confirmation.
        self._known: set[tuple[str, StoredKey]] = set()
        self._next_sequence: dict[str, tuple[str, int]] = {}
        """By broker: its epoch, and the sequence number that it will use next."""

    def receive(self, frames: Sequence[bytes], now_s: float, broker: str = "") -> Reception:
        """Add a publication, in frames as received by the SUB socket of ``broker``."""
        try:
            sequence, message = publication.decode(frames)
            key, body = _content(message)
        except WireError:
            return Reception(discarded="bad_message")
        if not versions.of_one_system(self._system_id, message.system_id):
            return Reception(discarded="foreign_system")
        lost = self._lost_before(broker, message.broker_epoch, sequence)
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
            broker=broker,
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
        """Return the time from which ``take_batch`` returns a batch; None: nothing is waiting."""
        if not self._pending:
            return None
        if self._pending_rows >= self._limits.batch_rows_max:
            return self._pending[0].received_s
        return self._pending[0].received_s + self._limits.batch_wait_s

    def take_batch(self, now_s: float, *, draining: bool = False) -> Batch | None:
        """Return the next batch if it is complete or has waited long enough, or, with ``draining``,
        in any case. An entry with more rows than a batch may have is a batch of its own."""
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
        return tuple(entries)

    def committed(self, batch: Batch, superseded: Iterable[Entry] = ()) -> list[tuple[str, Stored]]:
        """Remove ``batch`` from the backlog and return the confirmations to send, each with its
        broker. All of it is committed except the entries in ``superseded``, which were dropped."""
        dropped = {(entry.gateway_id, entry.key) for entry in superseded}
        keys: defaultdict[tuple[str, str], list[StoredKey]] = defaultdict(list)
        for entry in batch:
            self._known.discard((entry.gateway_id, entry.key))
            self.rows -= entry.rows
            self.bytes -= entry.byte_count
            keys[entry.broker, entry.gateway_id].append(entry.key)
        return [
            (
                broker,
                Stored(
                    gateway_id=gateway_id,
                    system_id=self._system_id,
                    keys=part,
                    superseded=tuple(
                        index for index, key in enumerate(part) if (gateway_id, key) in dropped
                    ),
                ),
            )
            for (broker, gateway_id), stored in keys.items()
            for begin in range(0, len(stored), STORED_KEYS_MAX)
            if (part := tuple(stored[begin : begin + STORED_KEYS_MAX]))
        ]

    def _has_room_for(self, entry: Entry) -> bool:
        # An entry larger than the limits must be accepted at some time.
        return not self.rows or (
            self.rows + entry.rows <= self._limits.pending_rows_max
            and self.bytes + entry.byte_count <= self._limits.pending_bytes_max
        )

    def _lost_before(self, broker: str, epoch: str, sequence: int) -> int:
        # The first publication received in an epoch shows no loss: the subscription may have begun
        # after others were sent.
        known_epoch, expected = self._next_sequence.get(broker, (None, sequence))
        self._next_sequence[broker] = epoch, sequence + 1
        return max(0, sequence - expected) if epoch == known_epoch else 0


def routes_of(publisher: str, connected: Mapping[str, bool]) -> list[str]:
    """The brokers that confirmations go through, by place: the one that published the data; or, if
    that is away, all others: the gateway may be connected to any of them."""
    others = [place for place, is_connected in connected.items() if is_connected]
    if publisher in connected and (publisher in others or not others):
        return [publisher]
    return others


def _content(message: publication.Publication) -> tuple[StoredKey, RecordBody]:
    if isinstance(message, PublishedRecord):
        return message.record.key, parse_body(message.record.body)
    result = message.result
    if result.partial:
        raise WireError("a partial result is not to be stored")
    return result.key, segment_copy(result)
