"""An untrained SenseVoiceSmall as a FunASR model directory: tags, subwords, and CTC."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import sentencepiece
import torch

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.sense_voice import SenseVoice
from tests.asr_worker.recognizer.tiny_model import (
    FEATURES,
    LFR_FRAMES,
    LFR_SHIFT,
    MELS,
    WORDS,
    write,
    write_statistics,
)

SUBWORDS = 60
SUBWORD_FILE = "subwords.bpe.model"
ATTENTION = {"attention_heads": 4, "linear_units": 256, "kernel_size": 11, "sanm_shfit": 0}
SETTINGS = {
    "model": "SenseVoiceSmall",
    "model_conf": {"sos": 1, "eos": 2, "ignore_id": -1},
    "encoder": "SenseVoiceEncoderSmall",
    "encoder_conf": {
        **ATTENTION,
        "output_size": 128,
        "num_blocks": 3,
        "tp_blocks": 2,
        "input_layer": "pe",
        "pos_enc_class": "SinusoidalPositionEncoder",
        "normalize_before": True,
        "selfattention_layer_type": "sanm",
    },
    "frontend": "WavFrontend",
    "frontend_conf": {
        "fs": 16000,
        "n_mels": MELS,
        "lfr_m": LFR_FRAMES,
        "lfr_n": LFR_SHIFT,
        "dither": 0.0,
    },
    "tokenizer": "SentencepiecesTokenizer",
    "tokenizer_conf": {"bpemodel": None, "unk_symbol": "<unk>", "split_with_space": True},
    "ctc_conf": {"dropout_rate": 0.0},
    "input_size": FEATURES,
}


def build(directory: Path) -> Path:
    """Write the model directory and return it."""
    funasr_repairs.import_modules(SenseVoice.modules)
    torch.manual_seed(3)
    network = sys.modules["funasr.models.sense_voice.model"].SenseVoiceSmall(
        encoder=SETTINGS["encoder"],
        encoder_conf=SETTINGS["encoder_conf"],
        ctc_conf=SETTINGS["ctc_conf"],
        input_size=FEATURES,
        vocab_size=SUBWORDS,
    )
    files = {
        "tokenizer_conf": {"bpemodel": SUBWORD_FILE},
        "frontend_conf": {"cmvn_file": "am.mvn"},
    }
    write(directory, SETTINGS, network, files)
    write_statistics(directory)
    rng = random.Random(1)
    lines = [" ".join(rng.choice(WORDS) for _ in range(6)) for _ in range(500)]
    with (directory / SUBWORD_FILE).open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=SUBWORDS,
            model_type="bpe",
            user_defined_symbols=["<|zh|>", "<|en|>", "<|NEUTRAL|>", "<|Speech|>", "<|withitn|>"],
            minloglevel=2,
        )
    return directory
