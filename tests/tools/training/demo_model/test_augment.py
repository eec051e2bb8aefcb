"""Augmentation of utterances."""

from __future__ import annotations

import numpy as np

from tools.training.demo_model.augment import LOG_FLOOR, Mixer, stretched, warp_matrix


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
