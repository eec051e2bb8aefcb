from __future__ import annotations

import random
from itertools import islice, repeat

import numpy as np

from tools.lab.random_paraformer import TINY, configuration, loaded, random_chunks, stream


def test_a_stream_has_texts_for_its_chunks() -> None:
    auto = loaded(TINY, tokens_per_frame=0.27, spread=0.0)
    audio = np.random.default_rng(1).normal(0, 0.1, 48_000).astype(np.float32)
    texts = list(stream(auto, audio, repeat(9_600)))
    assert len(texts) == 5
    # The first chunk gives a look-ahead less: frames of 60 ms, 0.27 tokens each.
    assert [len(text) for text in texts[:4]] == [2, 3, 3, 2]
    assert "".join(texts) == "".join(stream(auto, audio, random_chunks(random.Random(1))))


def test_the_size_is_that_of_paraformer_large_online() -> None:
    assert configuration(TINY)["encoder_conf"]["num_blocks"] == 3
    assert len(TINY.tokens) == 204


def test_chunks_have_random_sizes() -> None:
    sizes = list(islice(random_chunks(random.Random(1)), 100))
    assert len(set(sizes)) > 90
    assert min(sizes) < 1_600
    assert max(sizes) > 16_000
