"""Punctuation of batches beside FunASR's own of single texts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from asr_worker.recognizer.punctuation import (
    WORDS_MAX,
    Punctuator,
    has_marks,
    without_marks,
)
from tests.asr_worker.recognizer import tiny_punctuation
from tests.asr_worker.recognizer.comparison import load, load_plain, spoken, texts
from tests.asr_worker.recognizer.tiny_model import WORDS

TEXTS = 200


@pytest.fixture(scope="module")
def auto(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_plain(tiny_punctuation.build(tmp_path_factory.mktemp("models") / "punctuation"))


@pytest.fixture
def punctuator(auto: Any) -> Punctuator:
    return Punctuator(auto)


def random_text(rng: random.Random, words: int) -> str:
    """Chinese and English, with unknown words."""
    text = ""
    for _ in range(words):
        english = rng.random() < 0.4
        text += f" {rng.choice((*WORDS, 'iPhone'))} " if english else rng.choice("零一二三四五天")
    return text.strip()


def funasrs(auto: Any, text: str) -> str:
    return str(auto.generate(input=[text])[0]["text"]).strip()


def test_batches_equal_funasr_one_by_one_on_200_texts(auto: Any, punctuator: Punctuator) -> None:
    rng = random.Random(8)
    batch = [random_text(rng, rng.choice((1, 2, 5, 19, 20, 21, 40, 70))) for _ in range(TEXTS)]
    alone = [funasrs(auto, text) for text in batch]
    assert any("?" in text or "，" in text for text in alone)
    assert punctuator.punctuate(batch, [""] * TEXTS) == alone


def with_marks(auto: Any, monkeypatch: pytest.MonkeyPatch, mark: str, every: int) -> None:
    """Have the model put ``mark`` behind each word whose number ``every`` divides."""
    marks = list(auto.model.punc_list)

    def scores(text: Any, text_lengths: Any) -> Any:
        found = text.new_zeros(*text.shape, len(marks)).float()
        chosen = [marks.index(mark if not n % every else "_") for n in range(text.shape[1])]
        for place, choice in enumerate(chosen):
            found[:, place, choice] = 1.0
        return found, None

    monkeypatch.setattr(auto.model, "punc_forward", scores)


@pytest.mark.parametrize("mark", ["，", "。", "_"])
def test_a_long_sentence_ends_where_funasr_ends_it(
    mark: str, auto: Any, punctuator: Punctuator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(9)
    with_marks(auto, monkeypatch, mark, every=23)
    batch = [random_text(rng, words) for words in (WORDS_MAX + 50, 2 * WORDS_MAX + 110, 30)]
    alone = [funasrs(auto, text) for text in batch]
    assert punctuator.punctuate(batch, [""] * len(batch)) == alone


def test_the_words_before_are_seen_and_not_repeated(auto: Any, punctuator: Punctuator) -> None:
    """The model sees the context's words without their marks."""
    (after,) = punctuator.punctuate(["五六七"], ["一二。three, 四。"])
    (whole,) = punctuator.punctuate(["一二 three 四五六七"], [""])
    assert after.startswith("五")
    assert whole.endswith(after)


def test_punctuation_follows_the_words_of_the_model(tiny_model_dir: Path, auto: Any) -> None:
    ours = load(tiny_model_dir, auto.kwargs["model_path"])
    plain = load(tiny_model_dir)
    audio = [spoken(seed, 64_000) for seed in range(8)]
    expected = [funasrs(auto, str(text)) for text in texts(plain, audio)]
    assert texts(ours, audio) == expected


@pytest.mark.parametrize("text", ["好。", "Yes, sir", "Is it?", "done.", "、"])
def test_texts_with_marks(text: str) -> None:
    assert has_marks(text)
    assert not has_marks(without_marks(text))


@pytest.mark.parametrize("text", ["3.5", "it's", "10:30", "一二", "a-b", ""])
def test_texts_without_marks(text: str) -> None:
    assert not has_marks(text)
    assert without_marks(text) == text
