"""Core: the delivered results of one session, packed.

A live session may last for hours, and its results are needed again: for the transcript at its end,
for a client that resumes, and for REST. As objects they take 1.8 kB each, most of it word times.
The newest results are kept as bytes, a quarter of that. Older ones are compressed to a twentieth,
and concatenated: separate blocks would each keep a page of the heap from being freed.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator
from itertools import islice, pairwise

from msgspec import Raw, msgpack

from wire.messages import Result

RESULTS_PER_BLOCK = 32
"""Results compressed together. A session with fewer results compresses none."""
_decode = msgpack.Decoder(list[Result]).decode


class TranscriptStore:
    """Append only. Results are in segment order from 0."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._ends = array("q", [0])
        """Ends of the blocks in ``_packed``, after the start of the first."""
        self._newest: list[Raw] = []

    def __len__(self) -> int:
        return (len(self._ends) - 1) * RESULTS_PER_BLOCK + len(self._newest)

    def __iter__(self) -> Iterator[Result]:
        return self.since(0)

    def append(self, result: Result) -> None:
        """Keep all fields of ``result``, including tokens."""
        self._newest.append(Raw(msgpack.encode(result)))
        if len(self._newest) == RESULTS_PER_BLOCK:
            # The fastest level: the others take twice the time for a tenth less memory.
            self._packed += zlib.compress(msgpack.encode(self._newest), level=1)
            self._ends.append(len(self._packed))
            self._newest.clear()

    def since(self, index: int) -> Iterator[Result]:
        """Results from segment ``index`` on."""
        first = min(index // RESULTS_PER_BLOCK, len(self._ends) - 1)
        skipped = index - first * RESULTS_PER_BLOCK
        blocks = (self._packed[begin:end] for begin, end in pairwise(self._ends[first:]))
        for packed in (*map(zlib.decompress, blocks), msgpack.encode(self._newest)):
            yield from islice(_decode(packed), skipped, None)
            skipped = 0
