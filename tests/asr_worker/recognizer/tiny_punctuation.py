"""An untrained CT-Transformer as a FunASR model directory. Its punctuation means nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.punctuation import Punctuator
from tests.asr_worker.recognizer.tiny_model import TOKENS, write

WIDTH = 64
SETTINGS: dict[str, Any] = {
    "model": "CTTransformer",
    "model_conf": {
        "ignore_id": 0,
        "embed_unit": WIDTH,
        "att_unit": WIDTH,
        "punc_list": ["<unk>", "_", "，", "。", "？", "、"],
        "sentence_end_id": 3,
    },
    "encoder": "SANMEncoder",
    "encoder_conf": {
        "input_size": WIDTH,
        "output_size": WIDTH,
        "attention_heads": 4,
        "linear_units": 2 * WIDTH,
        "num_blocks": 1,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "kernel_size": 11,
        "sanm_shfit": 0,
        "selfattention_layer_type": "sanm",
    },
    "tokenizer": "CharTokenizer",
    "tokenizer_conf": {"unk_symbol": "<unk>"},
}


def build(directory: Path) -> Path:
    """Write the model directory and return it."""
    funasr_repairs.import_modules(Punctuator.modules)
    torch.manual_seed(4)
    network = sys.modules["funasr.models.ct_transformer.model"].CTTransformer(
        encoder=SETTINGS["encoder"],
        encoder_conf=SETTINGS["encoder_conf"],
        vocab_size=len(TOKENS),
        **SETTINGS["model_conf"],
    )
    write(directory, SETTINGS, network, {"tokenizer_conf": {"token_list": "tokens.json"}})
    (directory / "tokens.json").write_text(json.dumps(TOKENS, ensure_ascii=False), "utf-8")
    return directory
