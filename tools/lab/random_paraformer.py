"""Paraformers with random weights, and FunASR's own way to stream audio through one."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.paraformer_streaming import ParaformerStreaming
from asr_worker.recognizer.streaming_network import ChunkShape

MELS, STACKED_FRAMES, FRAMES_SHIFTED = 80, 7, 6
FEATURES = MELS * STACKED_FRAMES
CHARACTERS = 8_400
KERNEL = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSize:
    """The defaults are those of Paraformer-large (paraformer-zh) and Paraformer-large-online
    (paraformer-zh-streaming)."""

    width: int = 512
    inner: int = 2_048
    encoder_blocks: int = 50
    decoder_blocks: int = 16
    characters: int = CHARACTERS

    @property
    def tokens(self) -> list[str]:
        characters = [chr(0x4E00 + number) for number in range(self.characters)]
        return ["<blank>", "<s>", "</s>", *characters, "<unk>"]


TINY = NetworkSize(width=64, inner=256, encoder_blocks=3, decoder_blocks=2, characters=200)


def configuration(size: NetworkSize) -> dict[str, Any]:
    """The config.yaml of a streaming Paraformer."""
    attention = {"attention_heads": 4, "linear_units": size.inner, "kernel_size": KERNEL}
    return {
        "model": "ParaformerStreaming",
        "model_conf": {"ctc_weight": 0.0, "predictor_bias": 1, "sampling_ratio": 0.75},
        "encoder": "SANMEncoderChunkOpt",
        "encoder_conf": {
            **attention,
            "output_size": size.width,
            "num_blocks": size.encoder_blocks,
            "input_layer": "pe_online",
            "sanm_shfit": 0,
            "chunk_size": [12, 15],
            "stride": [8, 10],
            "pad_left": [0, 0],
            "encoder_att_look_back_factor": [4, 4],
            "decoder_att_look_back_factor": [1, 1],
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            **attention,
            "num_blocks": size.decoder_blocks,
            "att_layer_num": size.decoder_blocks,
            "sanm_shfit": (KERNEL - 1) // 2,
        },
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": size.width,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
        },
        "frontend": "WavFrontendOnline",
        "frontend_conf": {
            "fs": 16_000,
            "window": "hamming",
            "n_mels": MELS,
            "lfr_m": STACKED_FRAMES,
            "lfr_n": FRAMES_SHIFTED,
            "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "input_size": FEATURES,
    }


def offline_configuration(size: NetworkSize) -> dict[str, Any]:
    """The config.yaml of a Paraformer."""
    settings = configuration(size)
    attention = ("attention_heads", "linear_units", "kernel_size")
    encoder = {name: settings["encoder_conf"][name] for name in attention}
    encoder |= {"output_size": size.width, "num_blocks": size.encoder_blocks}
    encoder |= {"input_layer": "pe", "sanm_shfit": 0}
    settings |= {"model": "Paraformer", "encoder": "SANMEncoder", "encoder_conf": encoder}
    settings["frontend"] = "WavFrontend"
    return settings


def save(directory: Path, size: NetworkSize, *, tokens_per_frame: float, spread: float) -> None:
    """Write a Paraformer as a directory that FunASR loads."""
    settings = offline_configuration(size)
    model = network(settings, len(size.tokens), tokens_per_frame=tokens_per_frame, spread=spread)
    OmegaConf.save(OmegaConf.create(settings), directory / "config.yaml")
    torch.save(model.state_dict(), directory / "model.pt")
    (directory / "tokens.json").write_text(json.dumps(size.tokens), encoding="utf-8")
    files = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
    }
    description = {"framework": "pytorch", "task": "auto-speech-recognition", "model": {}}
    description |= {"file_path_metas": files}
    (directory / "configuration.json").write_text(json.dumps(description), encoding="utf-8")


def network(
    settings: dict[str, Any], tokens: int, *, tokens_per_frame: float, spread: float
) -> Any:
    """A FunASR model with random weights, the same for the same arguments. Its predictor gives a
    frame a weight of ``tokens_per_frame``, more or less as ``spread`` and the audio have it."""
    from funasr.models.paraformer import model as _  # noqa: F401  # registers its class

    funasr_repairs.import_modules(ParaformerStreaming.modules)
    from funasr.register import tables

    torch.manual_seed(20)
    parts = ("encoder", "decoder", "predictor")
    named = {k: v for k, v in settings.items() if k in parts or k.removesuffix("_conf") in parts}
    model = tables.model_classes[settings["model"]](
        input_size=FEATURES, vocab_size=tokens, **named, **settings["model_conf"]
    )
    with torch.no_grad():
        model.predictor.cif_output.weight.mul_(spread)
        model.predictor.cif_output.bias.fill_(math.log(tokens_per_frame / (1 - tokens_per_frame)))
    return model.eval()


def loaded(size: NetworkSize, **predictor: float) -> Any:
    """Such a model as ``funasr.AutoModel`` would load it."""
    from funasr.register import tables

    settings = configuration(size)
    model = network(settings, len(size.tokens), **predictor)
    frontend = tables.frontend_classes["WavFrontendOnline"](**settings["frontend_conf"])
    tokenizer = tables.tokenizer_classes["CharTokenizer"](token_list=size.tokens)
    kwargs = {**settings, "frontend": frontend, "tokenizer": tokenizer, "device": "cpu"}
    return SimpleNamespace(model=model, kwargs=kwargs)


def stream(
    auto: Any,
    audio: npt.NDArray[np.float32],
    chunks: Iterator[int],
    shape: ChunkShape | None = None,
) -> Iterator[str]:
    """FunASR's texts of one stream, whose client sends ``chunks`` samples at a time."""
    shape = shape or ChunkShape()
    cache: dict[str, Any] = {}
    begin = 0
    while begin < len(audio):
        end = begin + next(chunks)
        with torch.no_grad():
            (found,), _ = auto.model.inference(
                [audio[begin:end]],
                key=["stream"],
                cache=cache,
                is_final=end >= len(audio),
                chunk_size=[0, shape.frames, shape.ahead],
                encoder_chunk_look_back=shape.look_back,
                decoder_chunk_look_back=1,
                **auto.kwargs,
            )
        yield found["text"]
        begin = end


def random_chunks(rng: random.Random) -> Iterator[int]:
    """Between 10 ms and 1.5 s."""
    while True:
        yield rng.randint(160, 24_000)
