"""Times of tokens: from weights by hand, and of speech whose digits' places are known."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_worker import funasr_recognizer
from asr_worker.recognizer import Utterance
from asr_worker.settings import WorkerSettings, model_source
from asr_worker.token_times import token_times
from tools.lab.digit_speech import VOICES, expected_text, random_digits, speak


def test_a_token_is_where_its_weight_is() -> None:
    weights = np.zeros(40, np.float32)
    weights[[10, 20]] = 1.0
    # The middles of frames 10 and 20 are 630 and 1,230 ms.
    assert token_times(weights, 2) == [[330, 930], [930, 1530]]
    weights[11] = weights[10] = 0.5
    assert token_times(weights, 2)[0] == [360, 945]


def test_tokens_left_out_of_the_text_do_not_shift_the_rest() -> None:
    assert token_times(np.ones(4, np.float32), 2) == [[0, 60], [60, 390]]


def test_no_weight_no_time() -> None:
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


@pytest.mark.parametrize("voice", VOICES[::3])
def test_digits_are_found_where_they_are_spoken(voice: str) -> None:
    rng = random.Random(3)
    pcm: list[npt.NDArray[np.int16]] = []
    spans: list[tuple[float, float]] = []
    digits = random_digits(rng, 6)
    for digit in digits:
        one = speak(digit, voice, rng, lead_ms=150, tail_ms=150)
        begin = sum(len(part) for part in pcm) / 16 + 150
        spans.append((begin, begin + len(one) / 16 - 300))
        pcm.append(one)
    settings = WorkerSettings()
    model = funasr_recognizer.load(settings, model_source("demo"))
    whole = Utterance(pcm=np.concatenate(pcm).tobytes(), language="", hotwords=())
    (found,) = model.recognize([whole])
    assert found.text == expected_text(digits, voice)
    assert [token.text for token in found.tokens] == [expected_text(d, voice) for d in digits]
    for token, (begin, end) in zip(found.tokens, spans, strict=True):
        overlap_ms = min(token.end_ms, end) - max(token.start_ms, begin)
        assert overlap_ms > 0.5 * (end - begin)
