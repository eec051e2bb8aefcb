"""The audio files of the tests are what they are called."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from tools.lab.encoded_audio import CONTAINERS, encode, resample

TONE = (8_000 * np.sin(np.arange(16_000) * 0.1)).astype(np.int16)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_file_has_the_length_of_its_sound(container: str) -> None:
    data = encode(TONE, container, 44_100, 2)
    with av.open(io.BytesIO(data)) as file:
        channels = 1 if container == "amr" else 2
        assert file.streams.audio[0].codec_context.channels == channels
        seconds = sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0))
    assert seconds == pytest.approx(1, abs=0.15)


def test_resampling_keeps_the_length() -> None:
    assert len(resample(TONE, 8_000)) == pytest.approx(8_000, abs=20)
