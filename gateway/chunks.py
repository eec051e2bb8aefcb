"""SANS-IO: which chunks of a session are received."""

from __future__ import annotations

import hashlib
from array import array
from typing import Literal

Verdict = Literal["new", "repeated", "conflict", "gap"]


class ChunkLedger:
    """Chunk indexes are gapless from 0; a digest of each tells a repeat from a conflict."""

    def __init__(self) -> None:
        self._digests = array("Q")

    @property
    def next_index(self) -> int:
        return len(self._digests)

    def receive(self, chunk_index: int, data: bytes) -> Verdict:
        """Judge a chunk; a ``new`` one is taken note of."""
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
        if chunk_index > self.next_index:
            return "gap"
        if chunk_index < self.next_index:
            return "repeated" if self._digests[chunk_index] == digest else "conflict"
        self._digests.append(digest)
        return "new"
