"""Core: the delivered results of one session, packed.

A live session may last for hours, and its results are needed again: for the transcript at its end,
for a client that resumes, and for REST. As objects they take 1.8 kB each, most of it word times.
The newest results are kept as bytes, a fifth of that. Older ones are compressed to a twentieth, and
concatenated: separate blocks would each keep a page of the heap from being freed.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import msgpack
from msgspec.structs import astuple

from wire.messages import Failure, Result, Token

RESULTS_PER_BLOCK = 32
"""Results compressed together. A session with fewer results compresses none."""


class TranscriptStore:
    """Append only. Results are in segment order from 0."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._ends = array("q", [0])
        """Ends of the blocks in ``_packed``, after the start of the first."""
        self._newest: list[bytes] = []

    def __len__(self) -> int:
        return (len(self._ends) - 1) * RESULTS_PER_BLOCK + len(self._newest)

    def __iter__(self) -> Iterator[Result]:
        return self.since(0)

    def append(self, result: Result) -> None:
        """Keep all fields of ``result``, including tokens."""
        self._newest.append(msgpack.packb(astuple(result), default=astuple))
        if len(self._newest) == RESULTS_PER_BLOCK:
            self._packed += zlib.compress(b"".join(self._newest))
            self._ends.append(len(self._packed))
            self._newest.clear()

    def since(self, index: int) -> Iterator[Result]:
        """Results from segment ``index`` on."""
        first = min(index // RESULTS_PER_BLOCK, len(self._ends) - 1)
        skipped = index - first * RESULTS_PER_BLOCK
        blocks = (self._packed[begin:end] for begin, end in pairwise(self._ends[first:]))
        for packed in (*map(zlib.decompress, blocks), b"".join(self._newest)):
            unpacker = msgpack.Unpacker()
            unpacker.feed(packed)
            yield from map(_result, islice(unpacker, skipped, None))
            skipped = 0


def _result(values: list[Any]) -> Result:
    fields = dict(zip(Result.__struct_fields__, values, strict=True))
    if fields["error"] is not None:
        code, message = fields["error"]
        fields["error"] = Failure(code=code, message=message)
    fields["tokens"] = tuple(
        Token(text=text, start_ms=start_ms, end_ms=end_ms)
        for text, start_ms, end_ms in fields["tokens"]
    )
    fields["events"] = tuple(fields["events"])
    return Result(**fields)
