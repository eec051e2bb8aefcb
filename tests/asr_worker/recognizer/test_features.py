"""Features of a batch beside FunASR's, computed one by one with kaldi-native-fbank."""

from __future__ import annotations

import random
from typing import Any

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt
import pytest
import torch

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.features import BatchedFrontend, accelerate, mel_filters
from tools.lab.digit_speech import VOICES, random_digits, speak

DIFFERENCE_MAX = 2e-3
"""Natural logarithm; the features of a model range over about 20."""


def frontend(**options: Any) -> Any:
    funasr_repairs.import_modules(())
    from funasr.frontends.wav_frontend import WavFrontend

    return WavFrontend(**{"dither": 0.0, "lfr_m": 7, "lfr_n": 6, "window": "hamming", **options})


def padded(waves: list[npt.NDArray[np.float32]]) -> tuple[torch.Tensor, list[int]]:
    tensors = [torch.from_numpy(wave) for wave in waves]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), [len(w) for w in waves]


def waves_of_many_kinds() -> list[npt.NDArray[np.float32]]:
    rng = random.Random(5)
    noise = np.random.default_rng(5)
    speech = [
        speak(random_digits(rng, digits), voice, rng).astype(np.float32) / 32768
        for digits, voice in enumerate(VOICES, start=1)
    ]
    return [
        *speech,
        np.zeros(16_000, np.float32),
        noise.uniform(-1, 1, 12_345).astype(np.float32),
        np.sin(np.arange(20_000) * 0.3).astype(np.float32),
        np.sign(np.sin(np.arange(9_999) * 0.05)).astype(np.float32),
        np.full(5_000, 0.5, np.float32),
        noise.normal(0, 1e-4, 400).astype(np.float32),
    ]


@pytest.mark.parametrize("options", [{}, {"lfr_m": 1, "lfr_n": 1}, {"n_mels": 40}])
def test_features_of_a_batch_equal_those_of_single_utterances(options: dict[str, int]) -> None:
    original = frontend(**options)
    batched = BatchedFrontend(frontend(**options))
    waves = waves_of_many_kinds()
    features, lengths = batched.forward(*padded(waves))
    for row, length, wave in zip(features, lengths, waves, strict=True):
        alone, (frames,) = original(torch.from_numpy(wave)[None], [len(wave)])
        assert int(length) == int(frames)
        # In a pure tone some bands hold only rounding errors, and their logarithms differ.
        heard = alone[0] > alone.max() - 25
        difference = (row[:length] - alone[0]).abs()[heard]
        assert float(difference.max()) < DIFFERENCE_MAX


def test_filters_equal_kaldis() -> None:
    options = kaldi_native_fbank.MelBanksOptions()
    options.num_bins, options.low_freq, options.high_freq = 80, 20.0, 0.0
    frame_options = kaldi_native_fbank.FrameExtractionOptions()
    frame_options.samp_freq = 16_000.0
    kaldis = kaldi_native_fbank.MelBanks(options, frame_options, 1.0).get_matrix()
    np.testing.assert_allclose(mel_filters(80, 512, 16_000)[:256].T, kaldis[:, :256], atol=2e-5)


@pytest.mark.parametrize("options", [{"dither": 1.0}, {"snip_edges": False}, {"window": "povey"}])
def test_a_frontend_with_other_options_is_unchanged(options: dict[str, Any]) -> None:
    other = frontend(**options)
    assert not accelerate(other)
    assert "forward" not in vars(other)


def test_a_model_without_frontend_is_not_accelerated() -> None:
    assert not accelerate(None)
