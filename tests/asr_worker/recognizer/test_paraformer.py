"""Paraformer: batches beside FunASR's single utterances, and token times beside known speech."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_worker.recognizer.paraformer import token_times
from asr_worker.recognizer.protocol import Utterance
from asr_worker.recognizer.written_form import WrittenForm
from asr_worker.settings import DEMO_MODEL_DIR
from tests.asr_worker.recognizer import tiny_variants
from tests.asr_worker.recognizer.comparison import (
    BATCH,
    load,
    network_of,
    plain_text,
    spoken,
    texts,
)
from tests.asr_worker.recognizer.tiny_model import TOKENS
from tools.lab.digit_speech import VOICES, expected_text, random_digits, speak


def test_batches_equal_funasr_one_by_one_on_500_utterances(
    recognizer: WrittenForm, plain: Any
) -> None:
    rng = random.Random(500)
    audio = [spoken(seed, rng.randint(4_800, 128_000)) for seed in range(500)]
    batched = []
    for start in range(0, len(audio), BATCH):
        batched += texts(recognizer, audio[start : start + BATCH])
    different = [
        index for index, samples in enumerate(audio) if batched[index] != plain_text(plain, samples)
    ]
    assert different == []
    assert recognizer.abilities.batch_jobs > 1


def quieted(directory: Path) -> Path:
    """Have the model find no token in short audio, as trained models do in silence."""
    weights = torch.load(directory / "model.pt")
    weights["predictor.cif_output.weight"].zero_()
    weights["predictor.cif_output.bias"].fill_(-3.2)  # 0.04 tokens per frame of 60 ms
    torch.save(weights, directory / "model.pt")
    return directory


# -------------------------------------------------------------------------------------- variants

BATCHING = ("BiCifParaformer", "ContextualParaformer", "SeacoParaformer")
UTTERANCES = 200


@pytest.mark.parametrize("variant", BATCHING)
def test_batches_equal_one_by_one_on_200_utterances(variant: str, tmp_path: Path) -> None:
    """With FunASR's default dither in the configuration, which is random noise."""
    loaded = load(tiny_variants.build(tmp_path / "model", variant))
    rng = random.Random(200)
    utterances = [
        Utterance(pcm=spoken(seed, rng.randint(4_800, 64_000)).tobytes())
        for seed in range(UTTERANCES)
    ]
    batched = [
        recognition
        for start in range(0, UTTERANCES, BATCH)
        for recognition in loaded.recognize(utterances[start : start + BATCH])
    ]
    alone = [loaded.recognize([utterance])[0] for utterance in utterances]
    assert batched == alone
    assert sum(bool(recognition.text) for recognition in alone) > 0.9 * UTTERANCES
    assert loaded.abilities.batch_jobs > 1
    has_times = variant != "ContextualParaformer"
    assert loaded.abilities.word_times == has_times
    assert has_times == any(recognition.tokens for recognition in alone)


@pytest.mark.parametrize("variant", ["Paraformer", *BATCHING])
def test_a_cough_has_an_empty_text(variant: str, tmp_path: Path) -> None:
    directory = quieted(tiny_variants.build(tmp_path / "model", variant))
    loaded = load(directory)
    long, short = np.tile(spoken(7), 2)[:128_000], spoken(2, 8_000)
    (alone,) = texts(loaded, [long])
    assert alone
    assert texts(loaded, [short]) == [""]
    assert texts(loaded, [short, long, short]) == ["", alone, ""]
    assert texts(loaded, [short, short]) == ["", ""]
    assert loaded.abilities.batch_jobs > 1


@pytest.mark.parametrize("variant", ["ContextualParaformer", "SeacoParaformer"])
def test_hotwords_reach_the_model(variant: str, tmp_path: Path) -> None:
    loaded = load(tiny_variants.build(tmp_path / "model", variant))
    assert loaded.abilities.hotwords == "words"
    model = network_of(loaded)
    hotwords = ("五六", "seven eight", "x.txt")
    (found,) = loaded.recognize([Utterance(pcm=spoken(3).tobytes(), hotwords=hotwords)])
    assert found.text
    words = [["五", "六"], ["seven"], ["eight"], ["<unk>"], ["<s>"]]
    assert model.hotword_list == [[TOKENS.index(token) for token in word] for word in words]
    loaded.recognize([Utterance(pcm=spoken(3).tobytes())])
    assert model.hotword_list is None


# ------------------------------------------------------------------------------------- token times


def test_a_token_surrounds_the_middle_of_its_weight() -> None:
    weights = np.zeros(40, np.float32)
    weights[[10, 20]] = 1.0
    # The middles of frames 10 and 20 are at 630 and 1,230 ms.
    assert token_times(weights, 2) == [[330, 930], [930, 1530]]
    weights[11] = weights[10] = 0.5
    assert token_times(weights, 2)[0] == [360, 945]


def test_tokens_left_out_of_the_text_do_not_shift_the_rest() -> None:
    assert token_times(np.ones(4, np.float32), 2) == [[0, 60], [60, 390]]


def test_tokens_without_weight_have_zero_times() -> None:
    assert token_times(np.zeros(4, np.float32), 2) == [[0, 0], [0, 0]]
    assert token_times(np.ones(4, np.float32), 0) == []


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60),
    st.integers(0, 40),
)
def test_times_are_in_order_without_overlap(weights: list[float], count: int) -> None:
    times = token_times(np.array(weights, np.float32), count)
    assert len(times) == count
    assert all(0 <= start <= end for start, end in times)
    assert all(a[1] <= b[0] for a, b in pairwise(times)) or not sum(weights)


@pytest.fixture(scope="module")
def demo() -> WrittenForm:
    return load(DEMO_MODEL_DIR)


@pytest.mark.parametrize("voice", VOICES[::3])
def test_times_match_the_places_of_spoken_digits(voice: str, demo: WrittenForm) -> None:
    rng = random.Random(3)
    pcm: list[npt.NDArray[np.int16]] = []
    spans: list[tuple[float, float]] = []
    digits = random_digits(rng, 6)
    for digit in digits:
        one = speak(digit, voice, rng, lead_ms=150, tail_ms=150)
        begin = sum(len(part) for part in pcm) / 16 + 150
        spans.append((begin, begin + len(one) / 16 - 300))
        pcm.append(one)
    whole = Utterance(pcm=np.concatenate(pcm).tobytes(), language="", hotwords=())
    (found,) = demo.recognize([whole])
    assert found.text == expected_text(digits, voice)
    assert [token.text for token in found.tokens] == [expected_text(d, voice) for d in digits]
    for token, (begin, end) in zip(found.tokens, spans, strict=True):
        overlap_ms = min(token.end_ms, end) - max(token.start_ms, begin)
        assert overlap_ms > 0.5 * (end - begin)
