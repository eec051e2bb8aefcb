"""SANS-IO: the delivered results of one session, packed.

A live session may last for hours, and its results are needed again: for the transcript at its end,
for a client that resumes, and for REST. As objects they take 1.8 kB each, most of it word times.
The newest results are kept as bytes, a quarter of that. Older ones are stored in columns, with
times as differences, and compressed to a fortieth. Compressed results are concatenated: separate
ones would each keep a page of the heap from being freed.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice, pairwise
from typing import Any, cast

import msgpack

from wire import codec
from wire.messages import Failure, Result, Token

RESULTS_PER_BLOCK = 32
"""Results compressed together. A session with fewer results compresses none."""

_RISING = ("seq", "start_ms", "end_ms", "last_chunk_index", "resume_chunk_index", "resume_sample")
"""Columns kept as differences. Correct for any numbers, and small for these."""
_PLAIN = tuple(
    name for name in Result.__struct_fields__ if name not in (*_RISING, "error", "tokens")
)


class TranscriptStore:
    """Append only. Results are in segment order from 0."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._ends = array("q", [0])
        """Ends of the blocks in ``_packed``, after the start of the first."""
        self._newest: list[bytes] = []

    def __len__(self) -> int:
        return self._block_count * RESULTS_PER_BLOCK + len(self._newest)

    def __iter__(self) -> Iterator[Result]:
        return self.since(0)

    def append(self, result: Result) -> None:
        """Keep all fields of ``result``, including tokens."""
        self._newest.append(msgpack.packb(codec.encode(result)))
        if len(self._newest) == RESULTS_PER_BLOCK:
            self._packed += _block([_result(packed) for packed in self._newest])
            self._ends.append(len(self._packed))
            self._newest.clear()

    def since(self, index: int) -> Iterator[Result]:
        """Results from segment ``index`` on."""
        first, skipped = divmod(index, RESULTS_PER_BLOCK)
        for begin, end in pairwise(self._ends[first:]):
            yield from islice(_results(bytes(self._packed[begin:end])), skipped, None)
            skipped = 0
        if first > self._block_count:
            return
        for packed in self._newest[skipped:]:
            yield _result(packed)

    @property
    def _block_count(self) -> int:
        return len(self._ends) - 1


def _result(packed: bytes) -> Result:
    return cast(Result, codec.decode(msgpack.unpackb(packed)))


def _block(results: Sequence[Result]) -> bytes:
    tokens = [token for result in results for token in result.tokens]
    ends = [0, *(token.end_ms for token in tokens)]
    columns = [
        [_differences([getattr(result, name) for result in results]) for name in _RISING],
        [[getattr(result, name) for result in results] for name in _PLAIN],
        [result.error and (result.error.code, result.error.message) for result in results],
        [len(result.tokens) for result in results],
        [token.text for token in tokens],
        [token.start_ms - end_ms for token, end_ms in zip(tokens, ends, strict=False)],
        [token.end_ms - token.start_ms for token in tokens],
    ]
    packed: bytes = msgpack.packb(columns)
    return zlib.compress(packed)


def _results(block: bytes) -> Iterator[Result]:
    columns: Any = msgpack.unpackb(zlib.decompress(block))
    rising, plain, errors, counts, *of_tokens = columns
    tokens = _tokens(*of_tokens)
    rows = zip(*(accumulate(column) for column in rising), *plain, strict=True)
    for row, error, count in zip(rows, errors, counts, strict=True):
        yield Result(
            **dict(zip((*_RISING, *_PLAIN), row, strict=True)),
            error=error and Failure(code=error[0], message=error[1]),
            tokens=tuple(islice(tokens, count)),
        )


def _tokens(texts: Iterable[str], pauses: Iterable[int], lengths: Iterable[int]) -> Iterator[Token]:
    end_ms = 0
    for text, pause_ms, length_ms in zip(texts, pauses, lengths, strict=True):
        start_ms = end_ms + pause_ms
        end_ms = start_ms + length_ms
        yield Token(text=text, start_ms=start_ms, end_ms=end_ms)


def _differences(numbers: Sequence[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise((0, *numbers))]
