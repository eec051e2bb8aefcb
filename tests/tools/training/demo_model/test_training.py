"""Batches of the training loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.training.demo_model import training
from tools.training.demo_model.augment import Mixer


@pytest.mark.parametrize("frames", [1, 5, 6, 7, 12, 13, 100, 103, 105])
def test_stacking_is_that_of_the_frontend(frames: int) -> None:
    from funasr.frontends.wav_frontend import apply_lfr

    features = np.random.default_rng(frames).normal(size=(frames, 80)).astype(np.float32)
    expected = apply_lfr(torch.from_numpy(features), 7, 6).numpy()
    np.testing.assert_array_equal(training.stack_frames(features), expected)


def test_the_last_utterance_of_a_batch_has_the_most_tokens(mixer: Mixer) -> None:
    padded, lengths, tokens, token_lengths = training.make_batch([mixer.draw() for _ in range(32)])
    assert padded.shape == (32, lengths.max(), 560)
    assert token_lengths[-1] == token_lengths.max() > 0
    assert [(row != -1).sum() for row in tokens] == token_lengths.tolist()
