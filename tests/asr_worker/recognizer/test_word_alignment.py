from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from whisper.timing import dtw_cpu
from whisper.tokenizer import get_tokenizer

from asr_worker.recognizer import word_alignment
from tests.asr_worker.recognizer import tiny_whisper
from wire.messages import Token

tiny_whisper.load_tokenizer(multilingual=True, languages=99)
TOKENIZER = get_tokenizer(True, num_languages=99, language="en", task="transcribe")


def words(text: str, starts_ms: list[int] | None = None) -> list[Token]:
    tokens = TOKENIZER.encode(text)
    return word_alignment.words(TOKENIZER, tokens, starts_ms or list(range(len(tokens) + 1)))


@pytest.mark.parametrize("seed", range(20))
def test_the_path_is_that_of_whispers_dynamic_time_warping(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost = rng.normal(size=(rng.integers(1, 20), rng.integers(1, 60)))
    rows, columns = dtw_cpu.py_func(cost)
    entered = [int(columns[rows == row].min()) for row in range(len(cost))]
    assert word_alignment.first_columns(cost).tolist() == entered


def test_tokens_start_where_their_attention_is() -> None:
    prompt_tokens, states, reached = 3, 60, [5, 20, 35, 50]
    logits = torch.zeros(2, prompt_tokens + 4, states)
    for row, state in enumerate(reached):
        logits[:, prompt_tokens - 1 + row, state - 4 : state + 5] = 8.0
    starts_ms = word_alignment.token_starts_ms(logits, prompt_tokens)
    assert len(starts_ms) == 4
    assert starts_ms[0] == 0
    for start_ms, (before, after) in zip(starts_ms[1:], pairwise(reached), strict=True):
        assert before * 20 < start_ms < after * 20


def test_attention_without_contrast_has_times() -> None:
    starts_ms = word_alignment.token_starts_ms(torch.zeros(1, 5, 10), 3)
    assert len(starts_ms) == 2
    assert all(0 <= start_ms < 200 for start_ms in starts_ms)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Mr. Quilter's gospel, again.", ["Mr", "Quilter's", "gospel", "again"]),
        ("希望你做的好。", list("希望你做的好")),
        ("我用iPhone手机", ["我", "用", "iPhone", "手", "机"]),
        (" It costs $5 -- twice!", ["It", "costs", "$5", "twice"]),
        ("...", []),
        ("", []),
    ],
)
def test_words_and_characters_without_punctuation(text: str, expected: list[str]) -> None:
    assert [word.text for word in words(text)] == expected


def test_a_words_time_covers_its_tokens() -> None:
    tokens = TOKENIZER.encode(" Quilterish story")
    pieces = len(tokens) - 1
    assert pieces > 1
    starts_ms = [100 * n for n in range(pieces)] + [1_000, 1_300]
    assert words(" Quilterish story", starts_ms) == [
        Token(text="Quilterish", start_ms=0, end_ms=1_000),
        Token(text="story", start_ms=1_000, end_ms=1_300),
    ]


def test_characters_share_the_time_of_their_token() -> None:
    (token,) = TOKENIZER.encode("我们")
    assert word_alignment.words(TOKENIZER, [token], [100, 300]) == [
        Token(text="我", start_ms=100, end_ms=200),
        Token(text="们", start_ms=200, end_ms=300),
    ]


def test_pauses_around_a_sentence_are_in_no_word() -> None:
    late = words(" so it is so", [0, 3_000, 3_200, 3_400, 3_600])
    assert [(word.start_ms, word.end_ms) for word in late][:2] == [(2_600, 3_000), (3_000, 3_200)]
    early = words(" so it is so.", [0, 200, 400, 600, 800, 9_000])
    assert (early[-1].start_ms, early[-1].end_ms) == (600, 1_000)
