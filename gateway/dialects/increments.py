"""Partial results as increments, for protocols whose clients only append text."""

from __future__ import annotations

from itertools import takewhile

from gateway.session.transcript import gap, word_spans


class Increments:
    """The text sent to a client that appends, over the segments of a session in order.

    ``revisable``: the client replaces the increments of a segment with its final text, so every new
    word is sent at once. Otherwise a word is sent when two consecutive partial results agree on it,
    because it cannot be corrected later. ``keeps_last``: the last word of a partial result is kept
    back, so that the final result has some.
    """

    def __init__(self, *, revisable: bool, keeps_last: bool = False) -> None:
        self._revisable = revisable
        self._keeps_last = keeps_last
        self._before = ""
        """The text of the last segment that had one."""
        self._sent: list[str] = []
        """Words of the current segment that are sent."""
        self._previous: list[str] = []

    def partial(self, text: str) -> str:
        """Return the text to append for a partial result of the segment."""
        words = _words(text)
        kept = len(words) if self._revisable else _common(words, self._previous)
        self._previous = words
        if self._keeps_last:
            kept = min(kept, len(words) - 1)
        if words[: len(self._sent)] != self._sent:
            return ""
        return self._advance(text, words, kept)

    def final(self, text: str) -> str:
        """Return the text to append for the final result of the segment, and end the segment."""
        text = text.strip()
        rest = self._advance(text, _words(text), len(_words(text)))
        self._end_segment(text)
        return rest

    def sentence(self, text: str) -> str:
        """Return the whole text of the segment, to append to the segments before, and end it."""
        text = text.strip()
        whole = gap(self._before, text) + text
        self._end_segment(text)
        return whole

    def _advance(self, text: str, words: list[str], kept: int) -> str:
        sent = len(self._sent)
        if kept <= sent:
            return ""
        spans = word_spans(text)
        begin = spans[sent - 1][1] if sent else spans[0][0]
        piece = text[begin : spans[kept - 1][1]]
        self._sent = words[:kept]
        return piece if sent else gap(self._before, piece) + piece

    def _end_segment(self, text: str) -> None:
        self._before = text or self._before
        self._sent = []
        self._previous = []


def _words(text: str) -> list[str]:
    return [text[begin:end] for begin, end in word_spans(text)]


def _common(words: list[str], others: list[str]) -> int:
    """Return the number of words that both begin with."""
    pairs = zip(words, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
