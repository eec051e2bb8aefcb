"""Punctuation by FunASR's CT-Transformer (Chen et al. 2020, arXiv:2003.01309), in batches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from msgspec import Struct

WORDS_AT_ONCE = 20
"""FunASR adds this many words of a text at a time …"""
WORDS_MAX = 200
"""… to those after the last sentence's end; beyond this number a comma becomes that end."""
CONTEXT_WORDS_MAX = 20
"""Words before a text that the model sees."""

_MARKS = re.compile(r"[，。？！、；：]|[,.?!;:](?!\S)")
"""Punctuation, but not the point of ``3.5``."""
_ASCII = {"，": ",", "。": ".", "？": "?"}
_SENTENCE_ENDS = ("。", "？")


def has_marks(text: str) -> bool:
    return _MARKS.search(text) is not None


def without_marks(text: str) -> str:
    return _MARKS.sub("", text)


class _Text(Struct):
    """A text in progress. ``words`` are all of it, with the context before it."""

    words: list[str]
    context_words: int = 0
    taken: int = 0
    """Number of words that the model has seen."""
    begin: int = 0
    """Index of the first word after the last sentence's end."""
    marks: list[str] = []
    """The mark after each word before ``begin``, ``_`` for none."""
    starts: set[int] = set()
    """Indices of the first words of the windows."""

    def next_window(self) -> slice:
        """Return the words for the model's next call."""
        step = self.context_words + WORDS_AT_ONCE if not self.taken else WORDS_AT_ONCE
        self.taken = min(self.taken + step, len(self.words))
        return slice(self.begin, self.taken)

    def take(self, marks: list[str]) -> None:
        """Take the marks after the words of the last window."""
        if self.taken < len(self.words):
            end = _last_sentence_end(marks)
            if end is None and len(marks) > WORDS_MAX and "，" in marks[2:-1]:
                # The sentence is too long: it ends at its last comma.
                end = len(marks) - 2 - marks[2:-1][::-1].index("，")
                marks[end] = "。"
            marks = marks[: 0 if end is None else end + 1]
        self.starts.add(self.begin)
        self.marks += marks
        self.begin += len(marks)

    def written(self) -> str:
        """Return the text without its context, as FunASR writes it."""
        text = ""
        for place in range(self.context_words, len(self.words)):
            word, mark = self.words[place], self.marks[place]
            is_first = place == self.context_words or place in self.starts
            if word[0].isascii():
                if is_first or self.marks[place - 1] in _SENTENCE_ENDS:
                    word = word.capitalize()
                if is_first or self.words[place - 1][0].isascii():
                    word = " " + word
                mark = _ASCII.get(mark, mark)
            text += word + mark.replace("_", "")
        if text[-1] in "，、,":
            return text[:-1] + ("." if text[-1] == "," else "。")
        if text[-1] in "。？.?":
            return text
        return text + ("." if text[-1].isascii() else "。")


def _last_sentence_end(marks: list[str]) -> int | None:
    """Return the index of the last end, not counting the outermost words as FunASR does."""
    places = range(len(marks) - 2, 1, -1)
    return next((place for place in places if marks[place] in _SENTENCE_ENDS), None)


class Punctuator:
    """Adds punctuation: the texts of FunASR's own ``inference``, which takes one at a time."""

    model_class: ClassVar = "CTTransformer"
    modules: ClassVar = (
        "funasr.models.ct_transformer.model",
        "funasr.models.sanm.encoder",
        "funasr.tokenizer.char_tokenizer",
    )
    """The FunASR modules that register the model's classes."""

    def __init__(self, auto: Any) -> None:
        self._model = auto.model
        self._tokenizer = auto.kwargs["tokenizer"]
        self._device = auto.kwargs["device"]
        self._marks: list[str] = list(auto.model.punc_list)

    def punctuate(self, texts: Sequence[str], contexts: Sequence[str]) -> list[str]:
        """Return ``texts`` with punctuation. ``contexts`` are the ends of the texts before them,
        with their punctuation, or empty. Raises any exception of FunASR."""
        progress = [self._begin(*each) for each in zip(texts, contexts, strict=True)]
        while unfinished := [each for each in progress if each.taken < len(each.words)]:
            windows = [each.words[each.next_window()] for each in unfinished]
            for each, marks in zip(unfinished, self._predict(windows), strict=True):
                each.take(marks)
        return [each.written().strip() for each in progress]

    def _begin(self, text: str, context: str) -> _Text:
        before = self._words(without_marks(context))[-CONTEXT_WORDS_MAX:]
        return _Text([*before, *self._words(text)], len(before))

    def _words(self, text: str) -> list[str]:
        """Split ``text`` as FunASR does: ASCII by spaces, Chinese by characters or by a model's
        dictionary."""
        from funasr.models.ct_transformer.utils import split_words

        words: list[str] = split_words(text, jieba_usr_dict=self._model.jieba_usr_dict)
        return words

    def _predict(self, windows: list[list[str]]) -> list[list[str]]:
        """Return the mark after each word."""
        rows = [torch.tensor(self._tokenizer.encode(words)) for words in windows]
        lengths = torch.tensor([len(row) for row in rows])
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        with torch.inference_mode():
            scores, _ = self._model.punc_forward(
                text=padded.to(self._device), text_lengths=lengths.to(self._device)
            )
        found = scores.argmax(dim=-1).tolist()
        return [
            [self._marks[mark] for mark in row[: len(words)]]
            for row, words in zip(found, windows, strict=True)
        ]
