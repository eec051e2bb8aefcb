"""Recordings as log mel features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tools.training.demo_model import clips
from tools.training.demo_model.bank import SPEECH_RMS


def test_clips_are_read_as_they_were_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    made = [
        clips.Clip("bank", name, "en", "12", rng.normal(size=(n, 80)).astype(np.float16))
        for name, n in (("a", 3), ("b", 7))
    ]
    clips.save_clips(tmp_path / "new" / "clips.npz", made)
    for read, saved in zip(clips.load_clips(tmp_path / "new" / "clips.npz"), made, strict=True):
        assert read[:4] == saved[:4]
        np.testing.assert_array_equal(read.features, saved.features)


def test_human_recordings_are_named_by_digit_speaker_and_take(tmp_path: Path) -> None:
    speech = np.random.default_rng(1).uniform(-0.5, 0.5, 8_000)
    for name in ("7_anna_0.wav", "notes.wav"):
        sf.write(tmp_path / name, speech, 8_000)
    ((speaker, digit, take, samples),) = clips.human_waveforms(tmp_path)
    assert (speaker, digit, take) == ("anna", "7", 0)
    assert len(samples) == 16_000, "resampled to 16 kHz"


def test_levelled_speech_has_the_level_of_the_bank() -> None:
    speech = np.random.default_rng(1).normal(0, 0.01, 16_000).astype(np.float32)
    rms = float(np.sqrt((clips.levelled(speech) ** 2).mean()))
    assert rms == pytest.approx(SPEECH_RMS, rel=1e-3)
