"""SANS-IO: a session's results, in little room.

A live session may last for hours, and what it was told is needed again: for the transcript at its
end, for a client that comes back, for those who look at it meanwhile. As objects its results take
1.8 kB each, most of it times of words; packed and compressed a thirtieth of that.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import msgpack

from wire import codec
from wire.messages import Result

RESULTS_PER_BLOCK = 32
NEWEST_KEPT = 8
"""So many at least are as they were; of a short session nothing is packed."""


class ResultLog:
    """Append only; results are in segment order from 0."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._newest: list[Result] = []

    def __len__(self) -> int:
        return len(self._blocks) * RESULTS_PER_BLOCK + len(self._newest)

    def __iter__(self) -> Iterator[Result]:
        return self.since(0)

    def append(self, result: Result) -> None:
        """Of ``result`` all is kept, tokens too."""
        self._newest.append(result)
        if len(self._newest) >= RESULTS_PER_BLOCK + NEWEST_KEPT:
            oldest = self._newest[:RESULTS_PER_BLOCK]
            packed: bytes = msgpack.packb([codec.encode(each) for each in oldest])
            self._blocks.append(zlib.compress(packed))
            del self._newest[:RESULTS_PER_BLOCK]

    def since(self, index: int) -> Iterator[Result]:
        """Results from ``index`` on."""
        block, skipped = divmod(index, RESULTS_PER_BLOCK)
        if block < len(self._blocks):
            for packed in self._blocks[block:]:
                yield from islice(_unpacked(packed), skipped, None)
                skipped = 0
            yield from self._newest
        else:
            yield from self._newest[index - len(self._blocks) * RESULTS_PER_BLOCK :]


def _unpacked(block: bytes) -> Iterator[Result]:
    frames: Any = msgpack.unpackb(zlib.decompress(block))
    return (cast(Result, codec.decode(each)) for each in frames)
