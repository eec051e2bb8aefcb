"""An untrained Whisper as a FunASR model directory.

Its texts mean nothing, but they depend on every sample of the audio. The seed is fixed, so every
build is equal.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import whisper
from whisper.model import ModelDimensions
from whisper.tokenizer import get_tokenizer

from tests.asr_worker.recognizer.tiny_model import write

MULTILINGUAL, ENGLISH = 51_865, 51_864
"""Sizes of OpenAI's vocabularies."""


def network(vocabulary: int = MULTILINGUAL) -> Any:
    dimensions = ModelDimensions(
        n_mels=80,
        n_audio_ctx=1_500,
        n_audio_state=32,
        n_audio_head=2,
        n_audio_layer=2,
        n_vocab=vocabulary,
        n_text_ctx=448,
        n_text_state=32,
        n_text_head=2,
        n_text_layer=2,
    )
    torch.manual_seed(7)
    made = whisper.model.Whisper(dimensions)
    with torch.no_grad():
        # OpenAI leaves the positions uninitialised. Tokens that weigh less than they do not repeat.
        torch.nn.init.normal_(made.decoder.positional_embedding, std=1.0)
        torch.nn.init.normal_(made.decoder.token_embedding.weight, std=0.5)
        # Texts must depend on the audio.
        made.encoder.conv2.weight *= 10.0
        for block in made.decoder.blocks:
            block.cross_attn.query.weight *= 32.0
            block.cross_attn.value.weight *= 8.0
            block.cross_attn.out.weight *= 8.0
    load_tokenizer(multilingual=made.is_multilingual, languages=made.num_languages)
    return made.eval()


def load_tokenizer(*, multilingual: bool, languages: int) -> None:
    """Have Whisper load its tokenizer, whose file it leaves open, and keep it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        get_tokenizer(multilingual, num_languages=languages)


def build(directory: Path, vocabulary: int = MULTILINGUAL) -> Path:
    """Write the model directory and return it."""
    made = network(vocabulary)
    settings = {
        "model": "WhisperWarp",
        "model_conf": {"hub": "funasr", "dims": asdict(made.dims), "alignment_heads": [[1, 0]]},
        "frontend": "WhisperFrontend",
        "frontend_conf": {"fs": 16_000, "n_mels": 80, "do_pad_trim": True},
        "tokenizer": "WhisperTokenizer",
        "tokenizer_conf": {
            "is_multilingual": made.is_multilingual,
            "num_languages": made.num_languages,
        },
    }
    wrapped = torch.nn.Module()
    wrapped.model = made
    write(directory, settings, wrapped, {})
    return directory
