"""An untrained Paraformer of the demo model's shape, as a FunASR model directory.

Its texts mean nothing, but they depend on every sample of the audio, as comparisons of batched with
single recognition need. The seed is fixed, so every build is equal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.paraformer import Paraformer

MELS, LFR_FRAMES, LFR_SHIFT = 80, 7, 6
FEATURES = MELS * LFR_FRAMES
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TOKENS = ("<blank>", "<s>", "</s>", *"零一二三四五六七八九", *WORDS, "<unk>")


def configuration(width: int = 128, encoder_blocks: int = 4) -> dict[str, Any]:
    attention = {"attention_heads": 4, "linear_units": 4 * width, "kernel_size": 11}
    return {
        "model": "Paraformer",
        "model_conf": {"ctc_weight": 0.3, "predictor_bias": 1, "sampling_ratio": 0.75},
        "encoder": "SANMEncoder",
        "encoder_conf": {
            **attention,
            "output_size": width,
            "num_blocks": encoder_blocks,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {**attention, "num_blocks": 2, "att_layer_num": 2, "sanm_shfit": 0},
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": width,
            "threshold": 1.0,
            "l_order": 1,
            "r_order": 1,
            "tail_threshold": 0.45,
        },
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16000,
            "window": "hamming",
            "n_mels": MELS,
            "lfr_m": LFR_FRAMES,
            "lfr_n": LFR_SHIFT,
            "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "input_size": FEATURES,
    }


def build(directory: Path, **shape: int) -> Path:
    """Write the model directory and return it."""
    funasr_repairs.import_modules(Paraformer.modules)
    paraformer = sys.modules["funasr.models.paraformer.model"].Paraformer
    settings = configuration(**shape)
    torch.manual_seed(20)
    parts = ("encoder", "decoder", "predictor")
    named = {k: v for k, v in settings.items() if k in parts or k.removesuffix("_conf") in parts}
    network = paraformer(
        input_size=FEATURES, vocab_size=len(TOKENS), **named, **settings["model_conf"]
    )
    files = {
        "tokenizer_conf": {"token_list": "tokens.json"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    write(directory, settings, network, files)
    (directory / "tokens.json").write_text(json.dumps(TOKENS, ensure_ascii=False), "utf-8")
    write_statistics(directory)
    return directory


def write(
    directory: Path, settings: dict[str, Any], network: torch.nn.Module, files: dict[str, Any]
) -> None:
    """Write configuration and weights. ``files`` are paths inside, as FunASR's hubs have them."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), directory / "model.pt")
    OmegaConf.save(settings, directory / "config.yaml")
    description = {
        "framework": "pytorch",
        "task": "auto-speech-recognition",
        "model": {"type": "funasr"},
        "file_path_metas": {"init_param": "model.pt", "config": "config.yaml", **files},
    }
    (directory / "configuration.json").write_text(json.dumps(description), "utf-8")


def write_statistics(directory: Path) -> None:
    (directory / "am.mvn").write_text(_statistics(mean=12.0, scale=0.3), "ascii")


def _statistics(mean: float, scale: float) -> str:
    """Mean and scale in Kaldi's text format, which FunASR's frontend reads."""
    shifts = " ".join([f"{-mean}"] * FEATURES)
    scales = " ".join([f"{scale}"] * FEATURES)
    return (
        f"<Nnet>\n<Splice> {FEATURES} {FEATURES}\n[ 0 ]\n"
        f"<AddShift> {FEATURES} {FEATURES}\n<LearnRateCoef> 0 [ {shifts} ]\n"
        f"<Rescale> {FEATURES} {FEATURES}\n<LearnRateCoef> 0 [ {scales} ]\n</Nnet>\n"
    )
