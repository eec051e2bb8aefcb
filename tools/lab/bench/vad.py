"""Processor time of speech detection for a frame, compared with the model's own graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from gateway.audio.silero import CONTEXT_SAMPLES, STATE_UNITS, SileroNetwork, model_path
from gateway.audio.timeline import FRAME_SAMPLES
from tools.lab.bench.figures import Figure

STREAMS = 128
"""With 500 live sessions this many have a chunk of ``FRAMES`` in a turn of 50 ms."""
FRAMES = 6
ROUNDS = 50


def package_graph() -> Any:
    """The installed package's graph on one thread, an ``onnxruntime.InferenceSession``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # the file has unused initializers: a warning each
    return onnxruntime.InferenceSession(str(model_path()), options)


def by_package(samples: npt.NDArray[np.int16]) -> Callable[[], object]:
    """A function that runs the graph on ``samples``, shape ``(STREAMS, FRAMES, FRAME_SAMPLES)``,
    frame by frame."""
    graph = package_graph()
    heard = np.zeros((FRAMES, STREAMS, CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32)
    heard[..., CONTEXT_SAMPLES:] = samples.transpose(1, 0, 2) / 32768
    heard[1:, :, :CONTEXT_SAMPLES] = heard[:-1, :, -CONTEXT_SAMPLES:]
    rate = np.array(16_000, np.int64)

    def run() -> None:
        state = np.zeros((2, STREAMS, STATE_UNITS), np.float32)
        for frame in heard:
            _, state = graph.run(None, {"input": frame, "state": state, "sr": rate})

    return run


def by_ours(samples: npt.NDArray[np.int16]) -> Callable[[], object]:
    network = SileroNetwork(model_path())
    contexts = np.zeros((STREAMS, CONTEXT_SAMPLES), np.int16)
    state = np.zeros((2, STREAMS, STATE_UNITS), np.float32)
    frames = samples.reshape(-1, FRAME_SAMPLES)
    return lambda: network.run(frames, contexts, [FRAMES] * STREAMS, state)


def least_us(run: Callable[[], object]) -> float:
    """Processor time for a frame, µs, in the best of ``ROUNDS``."""
    times_s = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        run()
        times_s.append(time.process_time() - began_s)
    return min(times_s) / (STREAMS * FRAMES) * 1e6


def measure() -> list[Figure]:
    noise = np.random.default_rng(1).normal(0, 3_000, (STREAMS, FRAMES, FRAME_SAMPLES))
    samples = noise.astype(np.int16)
    return [
        Figure(
            what=f"speech detection, a frame of 32 ms, {STREAMS} chunks of {FRAMES} in a batch",
            value=least_us(by_ours(samples)),
            unit="µs",
            reference=f"the package's graph, {STREAMS} streams a call:"
            f" {least_us(by_package(samples)):.1f} µs",
        )
    ]
