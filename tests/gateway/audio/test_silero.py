"""Our graph of the network against the package's own."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest

from gateway.audio.silero import CONTEXT_SAMPLES, STATE_UNITS, SileroNetwork, model_path
from gateway.audio.timeline import FRAME_SAMPLES
from tools.lab.bench.vad import package_graph
from tools.lab.digit_speech import VOICES, random_digits, speak

Floats = npt.NDArray[np.float32]
Samples = npt.NDArray[np.int16]
SECONDS = 6
DIFFERENCE_MAX = 1e-4


def recordings() -> Samples:
    """Speech of every voice, at several levels and in noise, noises, tones and silence; shape
    ``(recordings, frames, FRAME_SAMPLES)``."""
    rng = random.Random(3)
    noise = np.random.default_rng(3)
    size = SECONDS * 16_000 // FRAME_SAMPLES * FRAME_SAMPLES
    time = np.arange(size)
    speech = [
        speak(random_digits(rng, 12), voice, rng)[:size].astype(np.float64) / 32768
        for voice in VOICES
    ]
    sounds = [
        *speech,
        *[0.01 * samples for samples in speech],
        *[20 * samples for samples in speech],
        *[samples + 0.01 * noise.standard_normal(len(samples)) for samples in speech],
        *[level * noise.standard_normal(size) for level in (1e-4, 1e-2, 1.0)],
        np.zeros(size),
        np.ones(size),
        np.sin(time * 0.1),
        np.sign(np.sin(time * 0.05)),
        np.repeat([0.0, 1.0, 0.0, 1.0], -(-size // 4))[:size] * noise.uniform(-1, 1, size),
    ]
    padded = np.stack([np.pad(sound, (0, size - len(sound))) for sound in sounds])
    samples: Samples = np.clip(32768 * padded, -32768, 32767).astype(np.int16)
    return samples.reshape(len(sounds), -1, FRAME_SAMPLES)


def heard_of(frames: Samples, gain: float) -> Floats:
    """With the samples before each, shape ``(recordings, frames, context and frame)``."""
    loud = gain / 32768 * frames
    before = np.concatenate([np.zeros_like(loud[:, :1]), loud[:, :-1]], axis=1)
    return np.concatenate([before[..., -CONTEXT_SAMPLES:], loud], axis=2).astype(np.float32)


def probabilities_of_the_package(heard: Floats) -> Floats:
    graph = package_graph()
    state = np.zeros((2, len(heard), STATE_UNITS), np.float32)
    rate = np.array(16_000, np.int64)
    found = []
    for frame in heard.transpose(1, 0, 2):
        output, state = graph.run(None, {"input": frame, "state": state, "sr": rate})
        found.append(output[:, 0])
    return np.stack(found, axis=1)


def nothing_before(streams: int) -> tuple[Samples, Floats]:
    """Contexts and state."""
    contexts = np.zeros((streams, CONTEXT_SAMPLES), np.int16)
    return contexts, np.zeros((2, streams, STATE_UNITS), np.float32)


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_probabilities_are_those_of_the_package(gain: float) -> None:
    samples = recordings()
    streams, frames, _ = samples.shape
    expected = probabilities_of_the_package(heard_of(samples, gain))
    assert expected.min() < 0.01
    assert expected.max() > 0.99
    network = SileroNetwork(model_path())
    contexts, state = nothing_before(streams)
    gains = np.full(streams * frames, gain, np.float32)
    found, _ = network.run(
        samples.reshape(-1, FRAME_SAMPLES), contexts, [frames] * streams, state, gains
    )
    assert np.abs(np.array(found) - expected).max() < DIFFERENCE_MAX


def test_streams_may_have_different_numbers_of_frames_and_continue() -> None:
    """Every recording in pieces of random lengths, other recordings in the batch each time."""
    rng = random.Random(7)
    samples = recordings()
    streams, frames, _ = samples.shape
    network = SileroNetwork(model_path())
    contexts, state = nothing_before(streams)
    expected, expected_state = network.run(
        samples.reshape(-1, FRAME_SAMPLES), contexts, [frames] * streams, state
    )
    found: list[list[float]] = [[] for _ in range(streams)]
    while going_on := [n for n in range(streams) if len(found[n]) < frames]:
        batch = rng.sample(going_on, rng.randint(1, len(going_on)))
        counts = [rng.randint(1, frames - len(found[n])) for n in batch]
        pieces = [
            samples[n, len(found[n]) : len(found[n]) + count]
            for n, count in zip(batch, counts, strict=True)
        ]
        probabilities, state[:, batch] = network.run(
            np.concatenate(pieces), contexts[batch], counts, state[:, batch]
        )
        for n, count, piece, row in zip(batch, counts, pieces, probabilities, strict=True):
            found[n] += row[:count]
            contexts[n] = piece[-1, -CONTEXT_SAMPLES:]
    np.testing.assert_allclose(found, expected, atol=DIFFERENCE_MAX)
    np.testing.assert_allclose(state, expected_state, atol=1e-3)
