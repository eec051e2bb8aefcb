"""SANS-IO: which chunks of a session are received."""

from __future__ import annotations

from array import array
from typing import Literal

DIGESTS_KEPT_MAX = 512
"""Chunks whose repeat is compared with what came before; an older one's counts as a repeat."""

Verdict = Literal["new", "repeated", "conflict", "gap"]


class ChunkLedger:
    """Chunk indexes are gapless from 0; a digest of each tells a repeat from a conflict.

    ``first_index`` is where a session begins that was elsewhere before; an earlier chunk counts as
    a repeat.
    """

    def __init__(self, first_index: int = 0) -> None:
        # All of its room from the start: a buffer that grows little by little, in every session of
        # a crowd, leaves holes in between that nothing else fits into.
        self._digests = array("q", bytes(8 * DIGESTS_KEPT_MAX))
        self._first_index = first_index
        self._next_index = first_index
        self._acked = first_index
        self.acked_at_s = 0.0
        """When ``acknowledge`` was last called."""

    @property
    def next_index(self) -> int:
        return self._next_index

    @property
    def unacked(self) -> int:
        """Chunks received since the last acknowledgement."""
        return self.next_index - self._acked

    def acknowledge(self, now_s: float) -> int | None:
        """Index up to which to acknowledge now, or None when there is nothing new."""
        self.acked_at_s = now_s
        if not self.unacked:
            return None
        self._acked = self.next_index
        return self._acked - 1

    def receive(self, chunk_index: int, data: bytes) -> Verdict:
        """Judge a chunk; a ``new`` one is taken note of."""
        # 64 bits of SipHash under this process's own key: as good as a digest as long as indexes
        # do not leave the process, and a quarter of BLAKE2's time.
        digest = hash(data)
        if chunk_index > self.next_index:
            return "gap"
        if chunk_index < self.next_index:
            kept = chunk_index >= max(self._first_index, self._next_index - DIGESTS_KEPT_MAX)
            differs = kept and self._digests[chunk_index % DIGESTS_KEPT_MAX] != digest
            return "conflict" if differs else "repeated"
        self._digests[chunk_index % DIGESTS_KEPT_MAX] = digest
        self._next_index += 1
        return "new"
