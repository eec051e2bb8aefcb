from __future__ import annotations

import random

import pytest

from tools.lab.bench import streaming
from tools.lab.bench.streaming import batch_s, equal_texts, funasr_chunk_s, multiplications
from tools.lab.random_paraformer import TINY, loaded


def test_texts_in_batches_are_those_of_funasr() -> None:
    assert equal_texts(4) == 4


def test_batches_and_funasr_take_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "FUNASR_CHUNKS", 4)
    auto = loaded(TINY, tokens_per_frame=0.27, spread=0.0)
    assert batch_s(auto, 2) > 0
    assert funasr_chunk_s(auto) > 0


def test_products_of_the_linear_layers() -> None:
    auto = loaded(TINY, tokens_per_frame=0.27, spread=0.0)
    encoder = sum(weights.numel() for weights in auto.model.encoder.parameters())
    assert 15 * encoder < multiplications(auto) < 18 * encoder


def test_utterances_differ_in_length() -> None:
    rng = random.Random(1)
    lengths = {len(streaming.utterance(rng)) for _ in range(5)}
    assert len(lengths) == 5
    assert min(lengths) >= 32_000
