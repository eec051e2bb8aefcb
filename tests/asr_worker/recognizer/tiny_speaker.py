"""An untrained CAM++ as a FunASR model directory. Its embeddings say nothing about voices, but they
depend on every sample of the audio."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.speaker_embedding import SpeakerEmbedder
from tests.asr_worker.recognizer.tiny_model import write

VALUES = 32
SETTINGS: dict[str, Any] = {
    "model": "CAMPPlus",
    "model_conf": {
        "feat_dim": 80,
        "embedding_size": VALUES,
        "growth_rate": 4,
        "bn_size": 2,
        "init_channels": 16,
    },
}


def build(directory: Path) -> Path:
    """Write the model directory and return it."""
    funasr_repairs.import_modules(SpeakerEmbedder.modules)
    torch.manual_seed(5)
    network = sys.modules["funasr.models.campplus.model"].CAMPPlus(**SETTINGS["model_conf"])
    write(directory, SETTINGS, network, {})
    return directory
