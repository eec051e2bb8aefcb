"""Word times from the cross-attention of Whisper's decoder.

The method is that of openai/whisper's ``timing.py``: dynamic time warping of attention weights. Its
own implementation needs numba, which compiles for seconds; this one is vectorised with NumPy.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from whisper.timing import median_filter

from wire.messages import Token

STATE_MS = 20
"""Duration of one encoder state."""
MEDIAN_STATES = 7
"""Width of the median filter over an attention weight's neighbours in time."""
WORD_MS_MAX = 1_400
"""Longest word at the start or end of a sentence, where a pause would lengthen it …"""
WORD_MEDIANS_MAX = 2
"""… or this multiple of the median word, if that is shorter."""

_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_CHARACTER = re.compile(f"[{_HAN}]")
"""Chinese and Japanese, where each character is a word of its own here."""
_UNSPACED = re.compile(f"[{_HAN}\u0e00-\u0eff\u1000-\u109f]")
"""Also Thai, Lao and Burmese, where each of the model's tokens is."""
_SENTENCE_END = re.compile("[.。!！?？]$")
_PUNCTUATION = " \"'“”‘’¿?？¡!！([{-)]}.。,，、:：;；…《》「」"
Floats = npt.NDArray[np.float64]


def token_starts_ms(logits: torch.Tensor, prompt_tokens: int) -> list[int]:
    """Return the start of each text token, and the end of the last.

    ``logits`` are those of the attention, of shape ``(heads, tokens, states)``, for a prompt of
    ``prompt_tokens``, the text's tokens, and the end token.
    """
    spoken = logits.softmax(dim=-1)
    deviation, mean = torch.std_mean(spoken, dim=-2, keepdim=True, correction=0)
    filtered = median_filter((spoken - mean) / deviation, MEDIAN_STATES)
    likely = filtered.mean(dim=0)[prompt_tokens - 1 : -1].double().numpy()
    return [int(state) * STATE_MS for state in first_columns(-np.nan_to_num(likely))]


def first_columns(cost: Floats) -> npt.NDArray[np.int64]:
    """Return the column in which the cheapest path enters each row of ``cost``.

    The path leads from the first cell to the last, by steps to the next row, column, or both.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for column in range(1, columns + 1):
        here = cost[:, column - 1]
        climbed = np.cumsum(here)
        # total[i] = here[i] + min(entered[i], total[i − 1]), solved for the whole column.
        entered = np.minimum(total[:-1, column - 1], total[1:, column - 1])
        total[1:, column] = climbed + np.minimum.accumulate(entered - (climbed - here))
    first = np.zeros(rows, np.int64)
    row, column = rows, columns
    while row:
        first[row - 1] = column - 1
        both, down, along = (
            total[row - 1, column - 1],
            total[row - 1, column],
            total[row, column - 1],
        )
        if down < both and down < along:
            row -= 1
        elif both < along:
            row, column = row - 1, column - 1
        else:
            column -= 1
    return first


def words(tokenizer: Any, tokens: list[int], starts_ms: list[int]) -> list[Token]:
    """Return the words of ``tokens`` without punctuation. ``starts_ms`` has one element more than
    ``tokens``: the end of the last one."""
    texts: list[str] = []
    spans: list[list[int]] = []
    position = 0
    for piece, piece_tokens in zip(*tokenizer.split_tokens_on_unicode(tokens), strict=True):
        start_ms, end_ms = starts_ms[position], starts_ms[position + len(piece_tokens)]
        position += len(piece_tokens)
        if texts and not _begins_word(piece, texts[-1]):
            texts[-1] += piece
            spans[-1][1] = end_ms
        else:
            texts.append(piece)
            spans.append([start_ms, end_ms])
    _shorten_pauses(texts, spans)
    return [
        token
        for text, (start_ms, end_ms) in zip(texts, spans, strict=True)
        for token in _separated(text.strip(_PUNCTUATION), start_ms, end_ms)
    ]


def _begins_word(piece: str, previous: str) -> bool:
    if not piece.strip(_PUNCTUATION):
        return False
    return piece.startswith(" ") or bool(_UNSPACED.search(piece[0] + previous[-1]))


def _shorten_pauses(texts: list[str], spans: list[list[int]]) -> None:
    """Remove pauses from the words beside them, as Whisper does at the ends of sentences."""
    durations = [end_ms - start_ms for start_ms, end_ms in spans if end_ms > start_ms]
    longest_ms = min(WORD_MS_MAX, round(WORD_MEDIANS_MAX * float(np.median(durations or [0]))))
    for index, (text, span) in enumerate(zip(texts, spans, strict=True)):
        if span[1] - span[0] <= longest_ms:
            continue
        if index == 0 or _SENTENCE_END.search(texts[index - 1]):
            span[0] = span[1] - longest_ms
        elif _SENTENCE_END.search(text) or index == len(texts) - 1:
            span[1] = span[0] + longest_ms


def _separated(text: str, start_ms: int, end_ms: int) -> list[Token]:
    """One token, or one for each Chinese or Japanese character."""
    parts = list(text) if _CHARACTER.search(text) else [text] if text else []
    parts = [part for part in parts if part.strip(_PUNCTUATION)]
    edges = np.linspace(start_ms, end_ms, len(parts) + 1).astype(int).tolist()
    return [
        Token(text=part, start_ms=start, end_ms=end)
        for part, start, end in zip(parts, edges[:-1], edges[1:], strict=True)
    ]
