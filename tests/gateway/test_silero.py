"""The network in numpy against the package's own graph on onnxruntime."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from gateway.silero import (
    CONTEXT_SAMPLES,
    FRAMES_AT_ONCE,
    HEARD_SAMPLES,
    STATE_UNITS,
    SileroNetwork,
    model_path,
)
from gateway.timeline import FRAME_SAMPLES
from tools.digit_speech import VOICES, random_digits, speak

Floats = npt.NDArray[np.float32]
SECONDS = 6
DIFFERENCE_MAX = 1e-4


def heard_of(samples: npt.NDArray[Any]) -> Floats:
    """Frames with the samples before each, shape ``(frames, HEARD_SAMPLES)``."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    before = np.vstack([np.zeros(FRAME_SAMPLES), frames[:-1]])[:, -CONTEXT_SAMPLES:]
    return np.hstack([before, frames]).astype(np.float32)


def recordings() -> Floats:
    """Speech of every voice, at several levels and in noise, noises, tones and silence; shape
    ``(frames, recordings, HEARD_SAMPLES)``."""
    rng = random.Random(3)
    noise = np.random.default_rng(3)
    size = SECONDS * 16_000
    time = np.arange(size)
    speech = [
        speak(random_digits(rng, 12), voice, rng)[:size].astype(np.float64) / 32768
        for voice in VOICES
    ]
    sounds = [
        *speech,
        *[0.01 * samples for samples in speech],
        *[np.clip(20 * samples, -1, 1) for samples in speech],
        *[samples + 0.01 * noise.standard_normal(len(samples)) for samples in speech],
        *[level * noise.standard_normal(size) for level in (1e-4, 1e-2, 1.0)],
        np.zeros(size),
        np.ones(size),
        np.sin(time * 0.1),
        np.sign(np.sin(time * 0.05)),
        np.repeat([0.0, 1.0, 0.0, 1.0], size // 4) * noise.uniform(-1, 1, size),
    ]
    return np.stack([heard_of(np.pad(s, (0, size - len(s)))) for s in sounds], axis=1)


def probabilities_of_the_package(heard: Floats) -> Floats:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the file has unused initializers: a warning each
    graph = onnxruntime.InferenceSession(str(model_path()), options)
    state = np.zeros((2, heard.shape[1], STATE_UNITS), np.float32)
    rate = np.array(16_000, np.int64)
    found = []
    for frame in heard:
        output, state = graph.run(None, {"input": frame, "state": state, "sr": rate})
        found.append(output[:, 0])
    return np.stack(found)


def probabilities_of_ours(heard: Floats) -> Floats:
    network = SileroNetwork(model_path())
    frames, streams, _ = heard.shape
    encoded = network.encode(heard.reshape(-1, HEARD_SAMPLES)).reshape(frames, streams, -1)
    state = np.zeros((streams, 2 * STATE_UNITS), np.float32)
    hidden = []
    for frame in encoded:
        network.advance(frame, state)
        hidden.append(state[:, :STATE_UNITS].copy())
    return network.probabilities(np.stack(hidden))


def test_probabilities_are_those_of_the_package() -> None:
    heard = recordings()
    expected = probabilities_of_the_package(heard)
    assert expected.min() < 0.01
    assert expected.max() > 0.99
    difference = np.abs(probabilities_of_ours(heard) - expected)
    assert difference.max() < DIFFERENCE_MAX


@pytest.mark.parametrize("frames", [1, FRAMES_AT_ONCE - 1, FRAMES_AT_ONCE, FRAMES_AT_ONCE + 1])
def test_how_many_frames_are_encoded_at_once_makes_no_difference(frames: int) -> None:
    heard = recordings()[:, 0][: FRAMES_AT_ONCE + 1]
    network = SileroNetwork(model_path())
    np.testing.assert_allclose(
        network.encode(heard[:frames]), network.encode(heard)[:frames], atol=1e-4
    )
