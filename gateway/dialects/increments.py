"""Partial texts for protocols that can only append: each says what is new since the one before."""

from __future__ import annotations

from gateway.session.transcript import gap, word_spans


class Increments:
    """What a client that appends has been told, over a session's segments in order.

    ``revisable``: the client replaces a segment's increments by its final text, so everything new
    is told at once. If not, a word is told when two partials in a row agree on it, because it
    cannot be taken back.
    """

    def __init__(self, *, revisable: bool) -> None:
        self._revisable = revisable
        self._before = ""
        """The last text of an earlier segment."""
        self._told: list[str] = []
        """Words of the present segment."""
        self._previous: list[str] = []

    def partial(self, text: str) -> str:
        """What is to be appended now that the segment reads ``text`` so far."""
        words = _words(text)
        kept = len(words) if self._revisable else _common(words, self._previous)
        self._previous = words
        if words[: len(self._told)] != self._told:
            return ""
        return self._tell(text, words, kept)

    def final(self, text: str) -> str:
        """What is to be appended at the segment's end, which the next call begins anew."""
        text = text.strip()
        rest = self._tell(text, _words(text), len(_words(text)))
        self._begin_next(text)
        return rest

    def sentence(self, text: str) -> str:
        """The segment's whole text, to be appended to those of the segments before."""
        text = text.strip()
        whole = gap(self._before, text) + text
        self._begin_next(text)
        return whole

    def _tell(self, text: str, words: list[str], kept: int) -> str:
        told = len(self._told)
        if kept <= told:
            return ""
        spans = word_spans(text)
        begin = spans[told - 1][1] if told else spans[0][0]
        piece = text[begin : spans[kept - 1][1]]
        self._told = words[:kept]
        return piece if told else gap(self._before, piece) + piece

    def _begin_next(self, text: str) -> None:
        self._before = text or self._before
        self._told = []
        self._previous = []


def _words(text: str) -> list[str]:
    return [text[begin:end] for begin, end in word_spans(text)]


def _common(words: list[str], others: list[str]) -> int:
    """How many words both begin with."""
    for count, (word, other) in enumerate(zip(words, others, strict=False)):
        if word != other:
            return count
    return min(len(words), len(others))
