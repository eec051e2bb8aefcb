"""The model directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.training.demo_model import network
from tools.training.demo_model.clips import MELS
from tools.training.demo_model.evaluation import Transcriber


def test_tokens_follow_the_token_file() -> None:
    said = [network.TOKENS[token] for token in network.token_ids("05", "en")]
    assert said == ["zero", "five"]
    assert [network.TOKENS[token] for token in network.token_ids("05", "zh")] == ["零", "五"]


def test_a_saved_model_is_loaded_without_a_network(tmp_path: Path) -> None:
    statistics = (np.zeros(MELS, dtype=np.float32), np.ones(MELS, dtype=np.float32))
    network.save(tmp_path, network.build().state_dict(), statistics)
    assert len(Transcriber(tmp_path).texts([np.zeros(16_000, dtype=np.float32)])) == 1
