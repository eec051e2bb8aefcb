"""Parts of the demo model's training that can be right or wrong without a training."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from funasr.frontends.wav_frontend import apply_lfr

from tools.training.demo_model import network, training, voices
from tools.training.demo_model.augment import LOG_FLOOR, Mixer, stretched, warp_matrix
from tools.training.demo_model.clips import Clip, log_mel
from tools.training.demo_model.evaluation import edit_distance, resampled_by_way_of, words_of
from tools.training.demo_model.noise import coloured


@pytest.fixture(scope="module")
def mixer() -> Mixer:
    return Mixer(_clips(), {"bank": 1.0}, [log_mel(coloured(np.random.default_rng(0), 1.0))], 4)


def _clips() -> list[Clip]:
    rng = np.random.default_rng(1)
    shapes = [(digit, rng.normal(12, 2, (40, 80)).astype(np.float16)) for digit in "0123456789"]
    return [Clip("bank", "a voice", "zh", digit, features) for digit, features in shapes]


@pytest.mark.parametrize("frames", [1, 5, 6, 7, 12, 13, 100, 103, 105])
def test_stacking_is_that_of_the_frontend(frames: int) -> None:
    features = np.random.default_rng(frames).normal(size=(frames, 80)).astype(np.float32)
    expected = apply_lfr(torch.from_numpy(features), 7, 6).numpy()
    np.testing.assert_array_equal(training.stack_frames(features), expected)


def test_drawn_utterances_are_finite_and_carry_their_digits(mixer: Mixer) -> None:
    drawn = [mixer.draw() for _ in range(200)]
    lengths = {len(utterance.tokens) for utterance in drawn}
    assert {0, 1, 2, 8} <= lengths
    for utterance in drawn:
        assert utterance.features.dtype == np.float32
        assert np.isfinite(utterance.features).all()
        assert utterance.features.min() >= np.float32(LOG_FLOOR) - 1e-3
        assert len(utterance.features) >= 12
        assert all(3 <= token <= 12 for token in utterance.tokens)


def test_a_batch_ends_with_an_utterance_that_says_something(mixer: Mixer) -> None:
    padded, lengths, tokens, token_lengths = training.make_batch([mixer.draw() for _ in range(32)])
    assert padded.shape == (32, lengths.max(), 560)
    assert token_lengths[-1] == token_lengths.max() > 0
    assert [(row != -1).sum() for row in tokens] == token_lengths.tolist()


def test_warping_moves_bands_and_one_hundred_per_cent_changes_nothing() -> None:
    np.testing.assert_allclose(warp_matrix(100), np.eye(80), atol=2e-2)
    tone = np.zeros(80, dtype=np.float32)
    tone[40] = 1.0
    assert int(np.argmax(tone @ warp_matrix(120))) < 40 < int(np.argmax(tone @ warp_matrix(85)))


def test_stretching_changes_length_and_keeps_the_ends() -> None:
    ramp = np.repeat(np.arange(50, dtype=np.float32)[:, None], 80, axis=1)
    longer = stretched(ramp, 1.2)
    assert longer.shape == (60, 80)
    np.testing.assert_allclose(longer[[0, -1], 0], [0, 49], atol=0.01)


def test_errors_are_counted_as_edits() -> None:
    assert edit_distance(list("123"), list("123")) == 0
    assert edit_distance(list("123"), list("13")) == 1
    assert edit_distance(list("123"), list("1423")) == 1
    assert edit_distance(list("123"), list("")) == 3


def test_a_word_of_the_other_language_is_no_digit_said() -> None:
    assert words_of("nine two five", "en") == ["9", "2", "5"]
    assert words_of("九三nine", "zh") == ["9", "3", "nine"]


def test_tokens_follow_the_token_file() -> None:
    said = [network.TOKENS[token] for token in network.token_ids("05", "en")]
    assert said == ["zero", "five"]
    assert [network.TOKENS[token] for token in network.token_ids("05", "zh")] == ["零", "五"]


def test_no_held_out_voice_is_asked_for_in_training() -> None:
    requests = voices.kokoro_requests(random.Random(1), 50)
    assert not any(voices.KOKORO_STYLE_TEST in request.voice.name for request in requests)
    assert not voices.ESPEAK_VARIANTS_LEFT_OUT.intersection(voices.ESPEAK_VARIANTS_TEST)


def test_the_telephone_takes_the_upper_half_away() -> None:
    noise = coloured(np.random.default_rng(2), 0.0, seconds=2)
    before, after = log_mel(noise), log_mel(resampled_by_way_of(8_000)(noise))
    difference = (before - after).mean(axis=0)
    assert abs(float(difference[:50].mean())) < 0.1
    assert float(difference[70:].mean()) > 5
