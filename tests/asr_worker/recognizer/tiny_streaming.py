"""An untrained ParaformerStreaming as a FunASR model directory, and FunASR's texts of streams.

Its predictor gives a token about every four frames, so that short utterances have several.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.paraformer_streaming import ParaformerStreaming
from asr_worker.recognizer.streaming_network import ChunkShape
from tests.asr_worker.recognizer.comparison import Samples
from tests.asr_worker.recognizer.tiny_model import (
    FEATURES,
    configuration,
    write,
    write_statistics,
)

CHARACTERS = "".join(chr(0x4E00 + 7 * number) for number in range(200))
TOKENS = ("<blank>", "<s>", "</s>", *CHARACTERS, "<unk>")


def streaming_configuration(width: int = 64, encoder_blocks: int = 3) -> dict[str, Any]:
    settings = configuration(width=width, encoder_blocks=encoder_blocks)
    return {
        **settings,
        "model": "ParaformerStreaming",
        "model_conf": {"ctc_weight": 0.0, "predictor_bias": 1, "sampling_ratio": 0.75},
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": {
            **settings["encoder_conf"],
            "input_layer": "pe_online",
            "chunk_size": [12, 15],
            "stride": [8, 10],
            "pad_left": [0, 0],
            "encoder_att_look_back_factor": [4, 4],
            "decoder_att_look_back_factor": [1, 1],
        },
        "decoder_conf": {**settings["decoder_conf"], "sanm_shfit": 5},
        "frontend": "WavFrontendOnline",
    }


def build(
    directory: Path, settings: dict[str, Any] | None = None, tokens: tuple[str, ...] = TOKENS
) -> Path:
    """Write the model directory and return it."""
    funasr_repairs.import_modules(ParaformerStreaming.modules)
    streaming = sys.modules["funasr.models.paraformer_streaming.model"].ParaformerStreaming
    settings = settings or streaming_configuration()
    torch.manual_seed(20)
    parts = ("encoder", "decoder", "predictor")
    named = {k: v for k, v in settings.items() if k in parts or k.removesuffix("_conf") in parts}
    network = streaming(
        input_size=FEATURES, vocab_size=len(tokens), **named, **settings["model_conf"]
    )
    with torch.no_grad():
        network.predictor.cif_output.weight.mul_(20.0)
        network.predictor.cif_output.bias.fill_(-1.0)
    files = {
        "tokenizer_conf": {"token_list": "tokens.json"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    write(directory, settings, network, files)
    (directory / "tokens.json").write_text(json.dumps(tokens, ensure_ascii=False), "utf-8")
    write_statistics(directory)
    return directory


def streamed_text(
    plain: Any, samples: Samples, rng: random.Random, shape: ChunkShape | None = None
) -> str:
    """FunASR's text of one utterance, whose client sends it in chunks of random size."""
    shape = shape or ChunkShape()
    audio = samples.astype(np.float32) / 32768
    cache: dict[str, Any] = {}
    texts: list[str] = []
    begin = 0
    while True:
        end = begin + rng.randint(160, 24_000)
        (found,) = plain.generate(
            input=[audio[begin:end]],
            cache=cache,
            is_final=end >= len(audio),
            chunk_size=[0, shape.frames, shape.ahead],
            encoder_chunk_look_back=shape.look_back,
            decoder_chunk_look_back=1,
        )
        texts.append(found["text"])
        begin = end
        if end >= len(audio):
            return "".join(texts)
