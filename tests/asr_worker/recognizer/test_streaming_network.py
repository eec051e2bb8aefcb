"""The network by itself; ``test_paraformer_streaming`` compares it with FunASR's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr_worker.recognizer.paraformer_streaming import ParaformerStreaming
from asr_worker.recognizer.protocol import ModelLoadError
from asr_worker.recognizer.streaming_network import (
    ChunkShape,
    Row,
    StreamingNetwork,
    UnsupportedNetworkError,
    integrate_and_fire,
)
from tests.asr_worker.recognizer import tiny_streaming
from tests.asr_worker.recognizer.comparison import load_plain
from tools.lab.random_paraformer import FEATURES, TINY, configuration

SHAPE = ChunkShape()


@pytest.fixture(scope="module")
def auto(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_plain(tiny_streaming.build(tmp_path_factory.mktemp("models") / "streaming"))


@pytest.fixture(autouse=True)
def inference_mode() -> Iterator[None]:
    with torch.inference_mode():
        yield


def rows_of(network: StreamingNetwork, slot: int, seed: int, chunks: int) -> list[Row]:
    features = torch.randn(
        chunks * SHAPE.frames, FEATURES, generator=torch.Generator().manual_seed(seed)
    )
    inputs = torch.cat((torch.zeros(SHAPE.ahead, FEATURES), network.embed(features, 0)))
    return [
        Row(
            slot=slot,
            chunk=chunk,
            wave=chunk,
            inputs=inputs[chunk * SHAPE.frames :][: SHAPE.row_frames],
            last=False,
        )
        for chunk in range(chunks)
    ]


def test_the_division_into_passes_does_not_matter(auto: Any) -> None:
    network = StreamingNetwork(auto.model, SHAPE, slots=3)

    def tokens(divided: list[list[Row]]) -> list[list[int]]:
        for slot in range(3):
            network.open(slot)
        return [found for part in divided for found in network.run(part)]

    streams = [rows_of(network, slot, seed=slot, chunks=7) for slot in range(3)]
    by_wave = [row for wave in zip(*streams, strict=True) for row in wave]
    expected = tokens([by_wave])
    assert sum(len(found) for found in expected) > 30
    assert tokens([[row] for row in by_wave]) == expected
    assert tokens([by_wave[:4], by_wave[4:13], by_wave[13:]]) == expected


def test_an_opened_slot_keeps_nothing_of_its_last_stream(auto: Any) -> None:
    network = StreamingNetwork(auto.model, SHAPE, slots=1)
    network.open(0)
    expected = network.run(rows_of(network, 0, seed=1, chunks=5))
    network.open(0)
    network.run(rows_of(network, 0, seed=2, chunks=5))
    network.open(0)
    assert network.run(rows_of(network, 0, seed=1, chunks=5)) == expected


def test_each_token_has_a_total_weight_of_the_threshold() -> None:
    weights = np.random.default_rng(1).uniform(0, 1, 200).astype(np.float32)
    one = np.float32(1.0)
    frames = list(enumerate(weights))
    sums, open_sum, total = integrate_and_fire(frames, [], np.float32(0.0), one)
    assert len(sums) == int(weights.sum())
    assert all(abs(float(sum(weight for _, weight in token)) - 1) < 1e-6 for token in sums)
    assert abs(float(sum(weight for _, weight in open_sum) - total)) < 1e-6
    for middle in range(1, 200):
        before, carried, weight = integrate_and_fire(frames[:middle], [], np.float32(0.0), one)
        after, *rest = integrate_and_fire(frames[middle:], carried, weight, one)
        assert [before + after, *rest] == [sums, open_sum, total]


def test_a_network_with_other_options_is_refused(
    auto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto.model.predictor, "smooth_factor", 1.5)
    with pytest.raises(UnsupportedNetworkError, match="smooth_factor"):
        StreamingNetwork(auto.model, SHAPE, slots=1)
    with pytest.raises(ModelLoadError, match=r"model 'tiny': .*smooth_factor is not supported"):
        ParaformerStreaming(auto, model="tiny", device="cpu")


def test_a_decoder_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    settings = configuration(TINY)
    settings["decoder_conf"]["sanm_shfit"] = 0
    auto = load_plain(tiny_streaming.build(tmp_path / "model", settings))
    with pytest.raises(UnsupportedNetworkError, match="sanm_shfit"):
        StreamingNetwork(auto.model, SHAPE, slots=1)
