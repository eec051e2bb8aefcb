"""Streams of a streaming Paraformer that a core carries, in batches and by FunASR one by one.

The model has the configuration of Paraformer-large-online (paraformer-zh-streaming) and random
weights; its predictor gives 4.5 tokens a second, as Mandarin speech does. A small model shows that
the texts are FunASR's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from asr_worker.recognizer.paraformer_streaming import ParaformerStreaming
from asr_worker.recognizer.protocol import Utterance
from asr_worker.recognizer.streaming_network import ChunkShape
from tools.lab.bench.figures import Figure
from tools.lab.digit_speech import VOICES, random_digits, speak
from tools.lab.random_paraformer import TINY, NetworkSize, loaded, random_chunks, stream
from wire.messages import SAMPLE_RATE_HZ

BLOCKS = (50, 16)
"""Layers of the encoder and of the decoder."""
TOKENS_PER_FRAME = 0.27
CHUNK_SAMPLES = 9_600
CHUNK_S = CHUNK_SAMPLES / SAMPLE_RATE_HZ
BATCHES = (1, 4, 16, 64)
CHUNKS = 3
"""Chunks of each stream in a batch: the first is not timed, the fastest of the others counts."""
FUNASR_CHUNKS = 8
PROMISED_RATIO = 3.0
COMPARED = 200
COMPARED_BATCH = 20
TOKENS_MIN = 5
"""Fewest tokens of a compared utterance."""

Samples = npt.NDArray[np.int16]


def utterance(rng: random.Random) -> Samples:
    """Speech of 2 to 8 s."""
    pcm = speak(random_digits(rng, 14), rng.choice(VOICES), rng)
    return np.resize(pcm, rng.randint(32_000, 128_000)).astype(np.int16)


def as_floats(samples: Samples) -> npt.NDArray[np.float32]:
    return samples.astype(np.float32) / np.float32(32768)


def equal_texts(count: int) -> int:
    """How many of ``count`` utterances have the same text in batches and from FunASR, whose clients
    send them in chunks of random size."""
    rng = random.Random(3)
    auto = loaded(TINY, tokens_per_frame=TOKENS_PER_FRAME, spread=20.0)
    recognizer = ParaformerStreaming(auto, model="streaming", device="cpu")
    equal = 0
    for begin in range(0, count, COMPARED_BATCH):
        spoken = [utterance(rng) for _ in range(min(COMPARED_BATCH, count - begin))]
        batch = [Utterance(pcm=samples.tobytes()) for samples in spoken]
        for found, samples in zip(recognizer.recognize(batch), spoken, strict=True):
            text = "".join(stream(auto, as_floats(samples), random_chunks(rng)))
            assert len(text) >= TOKENS_MIN
            equal += found.text == text
    return equal


def batch_s(auto: Any, streams: int) -> float:
    """Processor time of one chunk of each of ``streams`` streams in a batch."""
    recognizer = ParaformerStreaming(auto, model="streaming", device="cpu")
    pcm = utterance(random.Random(1)).tobytes()[: 2 * CHUNK_SAMPLES * CHUNKS]
    times_s = []
    for chunk in range(1, CHUNKS + 1):
        batch = [
            Utterance(pcm=pcm[: 2 * CHUNK_SAMPLES * chunk], partial=True, stream=("s", number))
            for number in range(streams)
        ]
        times_s.append(processor_s(partial(recognizer.recognize, batch)))
    return min(times_s[1:])


def funasr_chunk_s(auto: Any) -> float:
    """Processor time of FunASR for a chunk of a stream."""
    audio = as_floats(np.resize(utterance(random.Random(1)), CHUNK_SAMPLES * FUNASR_CHUNKS))
    texts = stream(auto, audio, repeat(CHUNK_SAMPLES))
    return min([processor_s(lambda: next(texts)) for _ in range(FUNASR_CHUNKS)][1:-1])


def processor_s(run: Callable[[], object]) -> float:
    began_s = time.process_time()
    run()
    return time.process_time() - began_s


def multiplications_per_s(rows: int) -> float:
    """Of one thread in a product like those of the model with ``rows`` frames in a batch."""
    size = NetworkSize()
    left, right = torch.randn(rows, size.width), torch.randn(size.width, size.inner)
    best_s = min(processor_s(lambda: left @ right) for _ in range(10))
    return rows * size.width * size.inner / best_s


def multiplications(auto: Any) -> float:
    """Those of the linear layers for a chunk: most of its time, whatever the batch."""
    model, frames = auto.model, ChunkShape().row_frames
    tokens = TOKENS_PER_FRAME * ChunkShape().frames
    encoder = sum(weights.numel() for weights in model.encoder.parameters())
    decoder = sum(weights.numel() for weights in model.decoder.parameters())
    seen = sum(layer.src_attn.linear_k_v.weight.numel() for layer in model.decoder.decoders)
    return float(encoder * frames + decoder * tokens + seen * (frames - tokens))


def carried(auto: Any) -> dict[int, float]:
    """Streams that a core carries, by the batch's number of streams."""
    return {streams: streams * CHUNK_S / batch_s(auto, streams) for streams in BATCHES}


def _figure(weights: str, by_batch: dict[int, float], reference: str) -> Figure:
    shown = ", ".join(f"{streams}: {value:.1f}" for streams, value in by_batch.items())
    return Figure(
        what=f"streams of {BLOCKS[0]} + {BLOCKS[1]} layers that a core carries, {weights}, by "
        "processor time",
        value=max(by_batch.values()),
        unit="streams",
        reference=f"by streams in a batch: {shown}; {reference}",
    )


def measure() -> list[Figure]:
    size = NetworkSize(encoder_blocks=BLOCKS[0], decoder_blocks=BLOCKS[1])
    auto = loaded(size, tokens_per_frame=TOKENS_PER_FRAME, spread=0.0)
    work = multiplications(auto)
    limit = CHUNK_S * multiplications_per_s(max(BATCHES) * ChunkShape().row_frames) / work
    funasr = CHUNK_S / funasr_chunk_s(auto)
    float32 = carried(auto)
    torch.ao.quantization.quantize_dynamic(auto.model, {torch.nn.Linear}, inplace=True)
    funasr_int8 = CHUNK_S / funasr_chunk_s(auto)
    int8 = carried(auto)
    one_by_one = f"FunASR one by one: {funasr:.1f}"
    bound = f"arithmetic bound, with nothing but the linear layers' {work / 1e9:.1f} · 10⁹ products"
    ratio = max(int8.values()) / funasr
    return [
        _figure("float32", float32, f"{one_by_one}; {bound} a chunk: {limit:.1f}"),
        _figure("int8", int8, f"FunASR one by one with the same int8 layers: {funasr_int8:.1f}"),
        Figure(
            what="the same, int8, over FunASR's streams one by one",
            value=ratio,
            unit="× the streams",
            reference=f"float32: {max(float32.values()) / funasr:.1f} ×; {one_by_one}",
            at_least=PROMISED_RATIO,
        ),
        Figure(
            what=f"utterances, batched, with FunASR's text of random chunking, of {COMPARED}",
            value=equal_texts(COMPARED),
            unit="utterances",
            reference=f"each of at least {TOKENS_MIN} tokens, a small model",
            at_least=COMPARED,
        ),
    ]
