"""The demo model as a FunASR model directory: its shape, its tokens, its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import yaml  # type: ignore[import-untyped]

from asr_worker.recognizer import funasr_repairs, paraformer
from tools.lab.digit_speech import DIGIT_WORDS, Language
from tools.training.demo_model.clips import MELS

# They register the classes that the configuration names.
funasr_repairs.import_modules(paraformer.Paraformer.modules)
from funasr.models.paraformer.model import Paraformer  # noqa: E402

LFR_FRAMES: Final = 7
LFR_SHIFT: Final = 6
TOKENS: Final = ("<blank>", "<s>", "</s>", *DIGIT_WORDS["zh"], *DIGIT_WORDS["en"], "<unk>")
FIRST_TOKEN: Final[dict[Language, int]] = {"zh": 3, "en": 13}
WIDTH: Final = 128
HEADS: Final = 4
LINEAR_UNITS: Final = 512
ENCODER_BLOCKS: Final = 4
DECODER_BLOCKS: Final = 2
KERNEL: Final = 11
DROPOUT: Final = (
    0.0  # every utterance is new: nothing to overfit to, and masks are a fifth of the time
)

Statistics = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def token_ids(digits: str, language: Language) -> list[int]:
    """Token numbers of a digit string spoken in ``language``."""
    return [FIRST_TOKEN[language] + int(digit) for digit in digits]


def configuration() -> dict[str, Any]:
    """Contents of ``config.yaml``: FunASR's names for the parts and their arguments."""
    return {
        "model": "Paraformer",
        "model_conf": {
            "ctc_weight": 0.3,
            "lsm_weight": 0.1,
            "length_normalized_loss": True,
            "predictor_weight": 1.0,
            "predictor_bias": 1,
            "sampling_ratio": 0.75,
        },
        "encoder": "SANMEncoder",
        "encoder_conf": {
            "output_size": WIDTH,
            "attention_heads": HEADS,
            "linear_units": LINEAR_UNITS,
            "num_blocks": ENCODER_BLOCKS,
            "dropout_rate": DROPOUT,
            "positional_dropout_rate": 0.0,
            "attention_dropout_rate": 0.0,
            "input_layer": "pe",
            "pos_enc_class": "SinusoidalPositionEncoder",
            "normalize_before": True,
            "kernel_size": KERNEL,
            "sanm_shfit": 0,
            "selfattention_layer_type": "sanm",
        },
        "decoder": "ParaformerSANMDecoder",
        "decoder_conf": {
            "attention_heads": HEADS,
            "linear_units": LINEAR_UNITS,
            "num_blocks": DECODER_BLOCKS,
            "dropout_rate": DROPOUT,
            "positional_dropout_rate": 0.0,
            "self_attention_dropout_rate": 0.0,
            "src_attention_dropout_rate": 0.0,
            "att_layer_num": DECODER_BLOCKS,
            "kernel_size": KERNEL,
            "sanm_shfit": 0,
        },
        "predictor": "CifPredictorV2",
        "predictor_conf": {
            "idim": WIDTH,
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
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": LFR_FRAMES,
            "lfr_n": LFR_SHIFT,
            "dither": 0.0,
        },
        "tokenizer": "CharTokenizer",
        "tokenizer_conf": {"unk_symbol": "<unk>", "split_with_space": True},
        "input_size": MELS * LFR_FRAMES,
    }


def build() -> Paraformer:
    """An untrained model."""
    settings = configuration()
    return Paraformer(
        input_size=settings["input_size"],
        vocab_size=len(TOKENS),
        encoder=settings["encoder"],
        encoder_conf=settings["encoder_conf"],
        decoder=settings["decoder"],
        decoder_conf=settings["decoder_conf"],
        predictor=settings["predictor"],
        predictor_conf=settings["predictor_conf"],
        **settings["model_conf"],
    )


def save(directory: Path, weights: dict[str, torch.Tensor], statistics: Statistics) -> None:
    """Write a directory that ``funasr.AutoModel`` loads without a network.

    ``statistics`` are mean and standard deviation of each mel band, shape ``(80,)`` each.
    """
    directory.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(configuration(), sort_keys=False)
    (directory / "config.yaml").write_text(text, encoding="utf-8")
    paths = {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    description = {
        "framework": "pytorch",
        "task": "auto-speech-recognition",
        "model": {"type": "funasr"},
        "file_path_metas": paths,
    }
    (directory / "configuration.json").write_text(json.dumps(description, indent=2) + "\n")
    (directory / "tokens.json").write_text(
        json.dumps(TOKENS, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    (directory / "am.mvn").write_text(_kaldi_statistics(statistics), encoding="ascii")
    torch.save(
        {name: value.float().contiguous() for name, value in weights.items()},
        directory / "model.pt",
    )


def _kaldi_statistics(statistics: Statistics) -> str:
    """Mean and scale in Kaldi's text form, repeated for each of the stacked frames."""
    mean, deviation = statistics
    size = MELS * LFR_FRAMES
    shift = " ".join(f"{-value:.5f}" for value in np.tile(mean, LFR_FRAMES))
    scale = " ".join(f"{1 / value:.6f}" for value in np.tile(deviation, LFR_FRAMES))
    return (
        f"<Nnet>\n<Splice> {size} {size}\n[ 0 ]\n"
        f"<AddShift> {size} {size}\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> {size} {size}\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )
