"""Core: the chunk indexes that a session has received."""

from __future__ import annotations

from array import array
from typing import Literal

DIGESTS_KEPT_MAX = 512
"""Latest chunks whose repetition is compared. An older chunk always counts as repeated."""

Verdict = Literal["new", "repeated", "conflict", "gap"]


class ChunkLedger:
    """Chunk indexes have no gaps. A digest of each chunk distinguishes a repetition from a
    conflict.

    A session taken over from another gateway begins at ``first_index``. An earlier chunk counts as
    repeated.
    """

    def __init__(self, first_index: int = 0) -> None:
        # Allocated in full: buffers that grow in many sessions at once fragment the heap.
        self._digests = array("q", bytes(8 * DIGESTS_KEPT_MAX))
        self._first_index = first_index
        self.next_index = first_index
        self._acked = first_index
        self.acked_at_s = 0.0
        """Time of the last call of ``acknowledge``."""

    @property
    def unacked(self) -> int:
        """Chunks received since the last acknowledgement."""
        return self.next_index - self._acked

    def acknowledge(self, now_s: float) -> int | None:
        """Index of the last chunk to acknowledge now, or None if no chunk is unacknowledged."""
        self.acked_at_s = now_s
        if not self.unacked:
            return None
        self._acked = self.next_index
        return self._acked - 1

    def receive(self, chunk_index: int, data: bytes) -> Verdict:
        """Check a chunk, and record a ``new`` one."""
        # SipHash under this process's random key: a digest that never leaves the process, in a
        # quarter of BLAKE2's time.
        digest = hash(data)
        if chunk_index > self.next_index:
            return "gap"
        if chunk_index < self.next_index:
            kept = chunk_index >= max(self._first_index, self.next_index - DIGESTS_KEPT_MAX)
            differs = kept and self._digests[chunk_index % DIGESTS_KEPT_MAX] != digest
            return "conflict" if differs else "repeated"
        self._digests[chunk_index % DIGESTS_KEPT_MAX] = digest
        self.next_index += 1
        return "new"
