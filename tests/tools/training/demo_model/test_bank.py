"""The bank of digit speech."""

from __future__ import annotations

import numpy as np

from tools.lab.digit_speech import VOICES
from tools.training.demo_model.bank import BANK_VOICES, FRAME_SAMPLES, trim


def test_every_voice_of_the_bank_has_a_source() -> None:
    assert set(BANK_VOICES) == set(VOICES)


def test_trimming_keeps_the_speech_and_a_margin() -> None:
    silence = np.zeros(20 * FRAME_SAMPLES, dtype=np.float32)
    speech = np.full(10 * FRAME_SAMPLES, 0.5, dtype=np.float32)
    trimmed = trim(np.concatenate([silence, speech, silence]), margin_frames=3)
    assert len(trimmed) == 16 * FRAME_SAMPLES
    assert (trimmed[3 * FRAME_SAMPLES : 13 * FRAME_SAMPLES] == 0.5).all()
