from __future__ import annotations

import random
import wave
from pathlib import Path

import numpy as np
import pytest

from tools.lab import diarization as d

KEPT_OUT = ("en_rms", "en_slt", "zh_jun")


def test_three_voices_that_were_kept_out_of_training() -> None:
    voices = d.bundled_voices()
    embedder = d.load_stand_in({n: v for n, v in voices.items() if n not in KEPT_OUT})
    turns = d.conversation({name: voices[name] for name in KEPT_OUT}, random.Random(0))
    errors = d.measure(embedder, turns, d.SIMILARITY_MIN)
    assert errors.at_the_end <= d.ERROR_MAX
    assert errors.speakers == len(KEPT_OUT)
    # Were all voices one, two of three turns would be wrong.
    one = d.measure(embedder, turns, -1.0)
    assert one.speakers == 1 and one.at_the_end > 0.5


def test_the_error_is_the_share_of_speech_with_the_wrong_speaker() -> None:
    truth = ["ann", "bob", "ann", "bob"]
    assert d.error_rate([2, 1, 2, 1], truth, [100] * 4) == 0
    assert d.error_rate([1, 2, 3, 2], truth, [100, 100, 300, 100]) == pytest.approx(1 / 6)
    assert d.error_rate([1, 1, 1, 1], truth, [100] * 4) == 0.5


def test_recordings_are_read_by_speaker(tmp_path: Path) -> None:
    for name in ("0_ann_0", "1_ann_0", "0_bob_0"):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8_000)
            file.writeframes(np.full(4_000, 3_000, "<i2").tobytes())
    voices = d.recorded_voices(tmp_path)
    assert {name: len(voice) for name, voice in voices.items()} == {"ann": 2, "bob": 1}
    assert len(voices["bob"][0]) == pytest.approx(8_000, abs=3)
    assert voices["bob"][0].max() == pytest.approx(3_000 / 32768)
