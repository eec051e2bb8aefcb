"""Streams of many utterances in a batch beside FunASR, which takes one chunk of one stream."""

from __future__ import annotations

import difflib
import random
import time
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr_worker.recognizer import paraformer_streaming
from asr_worker.recognizer.paraformer_streaming import ParaformerStreaming
from asr_worker.recognizer.protocol import Utterance
from asr_worker.recognizer.streaming_network import ChunkShape, Row, StreamingNetwork
from tests.asr_worker.recognizer import tiny_streaming
from tests.asr_worker.recognizer.comparison import Samples, load, load_plain, spoken
from tools.lab.random_paraformer import random_chunks, stream

CHUNK = 9_600
TOKENS_MIN = 5


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_streaming.build(tmp_path_factory.mktemp("models") / "streaming")


@pytest.fixture(scope="module")
def plain(directory: Path) -> Any:
    return load_plain(directory)


@pytest.fixture
def recognizer(directory: Path) -> ParaformerStreaming:
    loaded = load(directory)._recognizer
    assert isinstance(loaded, ParaformerStreaming)
    return loaded


def speech(seed: int) -> Samples:
    """Speech of 2 to 8 s; every fourth ends at a chunk's end or less than a frame behind it."""
    rng = random.Random(seed)
    samples = rng.randint(32_000, 128_000)
    if seed % 4 == 0:
        samples -= samples % CHUNK - rng.choice((0, 1, 959, 960))
    return np.tile(spoken(seed), 8)[:samples]


def streamed_text(
    plain: Any, samples: Samples, rng: random.Random, shape: ChunkShape | None = None
) -> str:
    """FunASR's text of one utterance, whose client sends it in chunks of random size."""
    audio = samples.astype(np.float32) / np.float32(32768)
    return "".join(stream(plain, audio, random_chunks(rng), shape))


def final(samples: Samples, stream: tuple[str, int] | None = None) -> Utterance:
    return Utterance(pcm=samples.tobytes(), stream=stream)


def partial(samples: Samples, stream: tuple[str, int] | None = None) -> Utterance:
    return Utterance(pcm=samples.tobytes(), stream=stream, partial=True)


def texts(recognizer: ParaformerStreaming, utterances: Sequence[Utterance]) -> list[str | None]:
    return [recognition.text for recognition in recognizer.recognize(utterances)]


@pytest.fixture
def processed(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """All rows that go through a network."""
    rows: list[Row] = []
    run = StreamingNetwork.run

    def noted(network: StreamingNetwork, part: Sequence[Row]) -> list[list[int]]:
        rows.extend(part)
        return run(network, part)

    monkeypatch.setattr(StreamingNetwork, "run", noted)
    return rows


def test_whole_utterances_equal_funasrs_streams_with_random_chunking(
    recognizer: ParaformerStreaming, plain: Any
) -> None:
    rng = random.Random(40)
    audio = [speech(seed) for seed in range(32)]
    alone = [streamed_text(plain, samples, rng) for samples in audio]
    assert min(len(text) for text in alone) >= TOKENS_MIN
    assert len(set("".join(alone))) > 20
    batched = texts(recognizer, [final(samples) for samples in audio])
    assert batched == alone


def test_growing_streams_at_different_positions_equal_funasrs(
    recognizer: ParaformerStreaming, plain: Any, processed: list[Row]
) -> None:
    """Clients send their audio in chunks of random size; each batch has the streams that grew."""
    rng = random.Random(41)
    audio = [speech(seed) for seed in range(32, 48)]
    heard = [0] * len(audio)
    found: dict[int, str | None] = {}
    while len(found) < len(audio):
        growing = rng.sample([i for i in range(len(audio)) if i not in found], k=1) + [
            i for i in range(len(audio)) if i not in found and rng.random() < 0.6
        ]
        batch = {}
        for index in dict.fromkeys(growing):
            heard[index] += rng.randint(1_000, 24_000)
            samples, ended = audio[index][: heard[index]], heard[index] >= len(audio[index])
            batch[index] = (final if ended else partial)(samples, ("s", index))
        for (index, utterance), text in zip(
            batch.items(), texts(recognizer, list(batch.values())), strict=True
        ):
            if not utterance.partial:
                found[index] = text
    alone = [streamed_text(plain, samples, rng) for samples in audio]
    assert [found[index] for index in range(len(audio))] == alone
    chunks = sum(len(samples) // CHUNK + 1 for samples in audio)
    assert len(processed) == chunks, "each chunk once"


def test_a_partial_result_has_the_tokens_of_whole_chunks(
    recognizer: ParaformerStreaming, plain: Any
) -> None:
    samples = speech(3)[: 4 * CHUNK + 4_000]
    audio = samples.astype(np.float32) / np.float32(32768)
    of_chunks = list(stream(plain, audio, repeat(CHUNK)))
    expected = "".join(of_chunks[:4])
    assert len(expected) >= TOKENS_MIN
    assert texts(recognizer, [partial(samples)]) == [expected]


def test_another_chunk_shape(directory: Path, plain: Any) -> None:
    shape = ChunkShape(frames=8, ahead=4, look_back=2)
    recognizer = ParaformerStreaming(load_plain(directory), model="tiny", device="cpu", shape=shape)
    rng = random.Random(42)
    audio = [speech(seed) for seed in range(1, 9)]
    alone = [streamed_text(plain, samples, rng, shape) for samples in audio]
    assert texts(recognizer, [final(samples) for samples in audio]) == alone


def test_only_new_chunks_are_processed(
    recognizer: ParaformerStreaming, processed: list[Row]
) -> None:
    samples = speech(5)
    first = texts(recognizer, [partial(samples[: 3 * CHUNK + 100], ("s", 0))])
    again = texts(recognizer, [partial(samples[: 3 * CHUNK + 200], ("s", 0))])
    assert first == again
    assert [row.chunk for row in processed] == [0, 1, 2]
    texts(recognizer, [partial(samples[: 4 * CHUNK], ("s", 0))])
    assert [row.chunk for row in processed] == [0, 1, 2, 3]


def test_without_a_state_a_stream_is_processed_from_its_beginning(
    recognizer: ParaformerStreaming, directory: Path
) -> None:
    samples = speech(6)
    texts(recognizer, [partial(samples[: 2 * CHUNK], ("s", 0))])
    continued = texts(recognizer, [partial(samples[: 4 * CHUNK], ("s", 0))])
    other_worker = load(directory)._recognizer
    assert isinstance(other_worker, ParaformerStreaming)
    assert texts(other_worker, [partial(samples[: 4 * CHUNK], ("s", 0))]) == continued


def test_a_stream_far_behind_catches_up_over_several_partial_results(
    recognizer: ParaformerStreaming, processed: list[Row]
) -> None:
    samples = speech(6)[: 6 * CHUNK]
    (start,) = texts(recognizer, [partial(samples[: 4 * CHUNK])])
    processed.clear()
    assert texts(recognizer, [partial(samples, ("s", 0))]) == [start]
    assert len(processed) == paraformer_streaming.PARTIAL_CHUNKS_MAX
    (whole,) = texts(recognizer, [partial(samples, ("s", 0))])
    assert whole and start and whole.startswith(start) and len(whole) > len(start)
    assert [row.chunk for row in processed] == list(range(6))
    assert texts(recognizer, [partial(samples, ("s", 0))]) == [whole]


def test_a_stream_that_begins_otherwise_is_another_stream(
    recognizer: ParaformerStreaming, processed: list[Row]
) -> None:
    """Such as one of a session that another gateway has taken over."""
    one, other = speech(7)[: 4 * CHUNK], speech(9)[: 4 * CHUNK]
    (alone,) = texts(recognizer, [partial(other)])
    processed.clear()
    texts(recognizer, [partial(one[: 3 * CHUNK], ("s", 0))])
    assert texts(recognizer, [partial(other, ("s", 0))]) == [alone]
    assert [row.chunk for row in processed] == [0, 1, 2, 0, 1, 2, 3]


def test_two_results_of_one_stream_in_a_batch(
    recognizer: ParaformerStreaming, processed: list[Row]
) -> None:
    samples = speech(10)[: 6 * CHUNK]
    expected = texts(recognizer, [partial(samples[: 4 * CHUNK]), final(samples)])
    processed.clear()
    stream = ("s", 0)
    batch = [final(samples, stream), partial(samples[: 4 * CHUNK], stream)]
    assert texts(recognizer, batch) == expected[::-1]
    assert len(processed) == 7


def test_the_stream_unused_for_longest_is_evicted(
    directory: Path, monkeypatch: pytest.MonkeyPatch, processed: list[Row]
) -> None:
    monkeypatch.setattr(paraformer_streaming, "STREAMS_MAX", 2)
    recognizer = load(directory)._recognizer
    assert isinstance(recognizer, ParaformerStreaming)
    audio = [speech(seed)[: 2 * CHUNK] for seed in range(11, 16)]
    expected = [texts(recognizer, [partial(samples)])[0] for samples in audio]
    batch = [partial(samples, ("s", index)) for index, samples in enumerate(audio)]
    assert texts(recognizer, batch) == expected
    processed.clear()
    assert texts(recognizer, batch[3:]) == expected[3:]
    assert processed == []
    assert texts(recognizer, batch[:1]) == expected[:1]
    assert len(processed) == 2
    texts(recognizer, batch[4:])
    assert len(processed) == 2, "the fourth was evicted, not the fifth"


def test_states_fit_into_their_memory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auto = load_plain(directory)
    size = StreamingNetwork.bytes_per_stream(auto.model, ChunkShape())
    monkeypatch.setattr(paraformer_streaming, "STATES_BYTES_MAX", 3 * size + 1)
    recognizer = ParaformerStreaming(auto, model="tiny", device="cpu")
    network = recognizer._network
    kept = [*network._encoder_kept, *network._decoder_kept]
    tensors = [*(tensor for pair in kept for tensor in pair), *network._inputs_kept]
    assert sum(tensor.nbytes for tensor in tensors) == 3 * size


def test_an_idle_stream_is_forgotten(
    recognizer: ParaformerStreaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = speech(16)[: 2 * CHUNK]
    texts(recognizer, [partial(samples, ("s", 0))])
    assert len(recognizer._streams) == 1
    now_s = time.monotonic() + paraformer_streaming.IDLE_S_MAX + 1
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    texts(recognizer, [partial(samples)])
    assert not recognizer._streams


def test_a_failed_batch_leaves_no_state(
    recognizer: ParaformerStreaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = speech(17)[: 4 * CHUNK]
    expected = texts(recognizer, [partial(samples)])
    texts(recognizer, [partial(samples[: 2 * CHUNK], ("s", 0))])
    with monkeypatch.context() as patch:
        patch.setattr(StreamingNetwork, "run", lambda _network, _rows: 1 / 0)
        (failed,) = recognizer.recognize([partial(samples, ("s", 0))])
    assert failed.failure is not None
    assert texts(recognizer, [partial(samples, ("s", 0))]) == expected


def test_passes_are_bounded(
    recognizer: ParaformerStreaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = [speech(seed) for seed in range(18, 24)]
    expected = texts(recognizer, [final(samples) for samples in audio])
    passes: list[int] = []
    run = StreamingNetwork.run

    def noted(network: StreamingNetwork, rows: Sequence[Row]) -> list[list[int]]:
        passes.append(len(rows))
        return run(network, rows)

    monkeypatch.setattr(StreamingNetwork, "run", noted)
    monkeypatch.setattr(paraformer_streaming, "PASS_ROWS_MAX", 7)
    assert texts(recognizer, [final(samples) for samples in audio]) == expected
    assert max(passes) == 7


def test_half_precision(directory: Path) -> None:
    auto = load_plain(directory)
    auto.model.to(torch.bfloat16)
    recognizer = ParaformerStreaming(auto, model="tiny", device="cpu")
    samples = speech(25)
    (whole,) = texts(recognizer, [final(samples)])
    assert whole
    for chunks in range(1, len(samples) // CHUNK + 1):
        texts(recognizer, [partial(samples[: chunks * CHUNK], ("s", 0))])
    (grown,) = texts(recognizer, [final(samples, ("s", 0))])
    assert grown
    # Another division into batches rounds otherwise, and no weight of this model is trained.
    assert difflib.SequenceMatcher(None, whole, grown).ratio() > 0.8
