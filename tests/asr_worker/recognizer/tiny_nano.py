"""An untrained Fun-ASR-Nano as a FunASR model directory: SenseVoice's encoder, an adaptor, and a
language model of Qwen's architecture."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from omegaconf import OmegaConf

from tests.asr_worker.recognizer.comparison import load_plain
from tests.asr_worker.recognizer.tiny_model import FEATURES
from tests.asr_worker.recognizer.tiny_sense_voice import SETTINGS as SENSE_VOICE

WIDTH = 64


def build(directory: Path) -> Path:
    """Write the model directory and return it."""
    language_model = directory / "language_model"
    language_model.mkdir(parents=True)
    _write_language_model(language_model)
    settings = {
        "model": "FunASRNano",
        "audio_encoder": SENSE_VOICE["encoder"],
        "audio_encoder_conf": SENSE_VOICE["encoder_conf"],
        "audio_adaptor": "Transformer",
        "audio_adaptor_conf": {
            "downsample_rate": 1,
            "ffn_dim": 2 * WIDTH,
            "llm_dim": WIDTH,
            "attention_heads": 4,
            "n_layer": 1,
        },
        "llm": "Qwen2",
        "llm_conf": {"init_param_path": str(language_model), "llm_dtype": "fp32"},
        "frontend": "WavFrontend",
        "frontend_conf": {"fs": 16000, "n_mels": 80, "lfr_m": 7, "lfr_n": 6},
        "tokenizer": "HuggingfaceTokenizer",
        "tokenizer_conf": {"init_param_path": str(language_model)},
        "input_size": FEATURES,
        "max_length": 8,
    }
    OmegaConf.save(settings, directory / "config.yaml")
    (directory / "configuration.json").write_text(
        '{"model": {"type": "funasr"}, '
        '"file_path_metas": {"init_param": "model.pt", "config": "config.yaml"}}'
    )
    torch.save({}, directory / "model.pt")  # Without a file of weights there is no model.
    network = load_plain(directory).model
    network.audio_adaptor.linear2.weight.data *= 30  # Texts depend on the audio more.
    torch.save(network.state_dict(), directory / "model.pt")
    return directory


def _write_language_model(directory: Path) -> None:
    """Write Qwen's configuration, and a tokenizer of single bytes."""
    # Bytes that are no printable characters have others in their place, as in GPT-2.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    signs = [*map(chr, printable), *(chr(0x100 + n) for n in range(256 - len(printable)))]
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    end = len(signs)
    files = {
        "config.json": {
            "model_type": "qwen2",
            "vocab_size": end + 1,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {**by_bytes, "use_regex": True},
            "decoder": {**by_bytes, "use_regex": True},
            "model": {
                "type": "BPE",
                "vocab": {sign: n for n, sign in enumerate(signs)},
                "merges": [],
            },
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content), "utf-8")
