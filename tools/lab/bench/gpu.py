"""Recognition on a GPU, in batches and by FunASR one by one, and the limit of the card.

The model is that of the part ``streaming``. A machine without a GPU has one figure: it has none.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import torch

from asr_worker.recognizer import precision
from asr_worker.recognizer.paraformer_streaming import ParaformerStreaming
from asr_worker.recognizer.protocol import Utterance
from asr_worker.recognizer.streaming_network import ChunkShape
from tools.lab.bench import streaming
from tools.lab.bench.figures import Figure
from tools.lab.random_paraformer import NetworkSize, loaded, stream

BATCHES = (1, 16, 64)
CHUNKS = 4
"""Chunks of each stream; the first one is not timed, and the fastest counts."""
PRODUCTS = 20
PRECISIONS: tuple[precision.Precision, ...] = ("float32", "half")


def synchronised_s(device: str, run: Callable[[], object]) -> float:
    """The time of ``run``, the device's work included."""
    began_s = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began_s


def on(device: str, size: NetworkSize) -> Any:
    """The random model on ``device``."""
    auto = loaded(size, tokens_per_frame=streaming.TOKENS_PER_FRAME, spread=0.0)
    auto.model.to(device)
    auto.kwargs["device"] = device
    return auto


def batch_s(auto: Any, device: str, streams: int) -> float:
    """Time of one chunk of each of ``streams`` streams in a batch."""
    recognizer = ParaformerStreaming(auto, model="streaming", device=device)
    samples = np.resize(streaming.utterance(random.Random(1)), CHUNKS * streaming.CHUNK_SAMPLES)
    pcm, times_s = samples.tobytes(), []
    for chunk in range(1, CHUNKS + 1):
        heard = pcm[: 2 * streaming.CHUNK_SAMPLES * chunk]
        batch = [
            Utterance(pcm=heard, partial=True, stream=("s", number)) for number in range(streams)
        ]
        times_s.append(synchronised_s(device, partial(recognizer.recognize, batch)))
    return min(times_s[1:])


def funasr_chunk_s(auto: Any, device: str) -> float:
    """Time of FunASR for a chunk of a stream."""
    samples = np.resize(streaming.utterance(random.Random(1)), CHUNKS * streaming.CHUNK_SAMPLES)
    texts = stream(auto, streaming.as_floats(samples), repeat(streaming.CHUNK_SAMPLES))
    return min([synchronised_s(device, lambda: next(texts)) for _ in range(CHUNKS)][1:-1])


def multiplications_per_s(device: str, rows: int, kind: torch.dtype) -> float:
    """Of the device, in a product like those of the model with ``rows`` frames in a batch."""
    size = NetworkSize()
    left = torch.randn(rows, size.width, device=device, dtype=kind)
    right = torch.randn(size.width, size.inner, device=device, dtype=kind)
    best_s = min(synchronised_s(device, lambda: left @ right) for _ in range(PRODUCTS))
    return rows * size.width * size.inner / best_s


def figure(device: str, size: NetworkSize, weights: precision.Precision) -> Figure:
    auto = on(device, size)
    funasr = streaming.CHUNK_S / funasr_chunk_s(auto, device)
    work = streaming.multiplications(auto)
    rows = max(BATCHES) * ChunkShape().row_frames
    kind = torch.float16 if weights == "half" else torch.float32
    limit = streaming.CHUNK_S * multiplications_per_s(device, rows, kind) / work
    precision.apply(auto.model, weights, device)
    carried = {n: n * streaming.CHUNK_S / batch_s(auto, device, n) for n in BATCHES}
    shown = ", ".join(f"{streams}: {value:,.0f}" for streams, value in carried.items())
    return Figure(
        what=f"streams of {size.encoder_blocks} + {size.decoder_blocks} layers on {device}, "
        f"{weights}",
        value=max(carried.values()),
        unit="streams",
        reference=f"by streams in a batch: {shown}; FunASR one by one, float32: {funasr:,.0f}; "
        f"bound by the arithmetic of the linear layers: {limit:,.0f}",
    )


def measure() -> list[Figure]:
    found = torch.cuda.device_count()
    name = torch.cuda.get_device_name(0) if found else "without one nothing more is measured"
    cards = Figure(what="GPUs that torch finds", value=found, unit="GPUs", reference=name)
    if not found:
        return [cards]
    encoder, decoder = streaming.BLOCKS
    size = NetworkSize(encoder_blocks=encoder, decoder_blocks=decoder)
    return [cards, *(figure("cuda", size, weights) for weights in PRECISIONS)]
