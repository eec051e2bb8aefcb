"""Converts Whisper's published weights to a FunASR model directory: OpenAI's checkpoints, and
CTranslate2's ``model.bin`` in float16, which has the same values under other names
(github.com/OpenNMT/CTranslate2, specs/whisper_spec.py). Weights stay float16 on disk."""

from __future__ import annotations

import base64
import gzip
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import whisper
from msgspec import Struct
from omegaconf import OmegaConf

from asr_worker.model_files.catalogue import Form

_VERSION = 6
"""Version of CTranslate2's binary format."""
_DTYPES = ("<f4", "i1", "<i2", "<i4", "<f2")
"""NumPy's types by CTranslate2's numbers."""
_BLOCK = re.compile(r"(encoder|decoder)/layer_(\d+)/(.+)/(\w+)")
_MODULES = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/layer_norm": "encoder.ln_post",
    "decoder/embeddings": "decoder.token_embedding",
    "decoder/layer_norm": "decoder.ln",
}
_BLOCK_MODULES = {
    "self_attention/layer_norm": ("attn_ln",),
    "self_attention/linear_0": ("attn.query", "attn.key", "attn.value"),
    "self_attention/linear_1": ("attn.out",),
    "attention/layer_norm": ("cross_attn_ln",),
    "attention/linear_0": ("cross_attn.query",),
    "attention/linear_1": ("cross_attn.key", "cross_attn.value"),
    "attention/linear_2": ("cross_attn.out",),
    "ffn/layer_norm": ("mlp_ln",),
    "ffn/linear_0": ("mlp.0",),
    "ffn/linear_1": ("mlp.2",),
}
"""By CTranslate2's module: those of OpenAI whose rows it joins."""
_PARAMETERS = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
_MULTILINGUAL_VOCABULARY_MIN = 51_865


class WeightsError(Exception):
    """The file does not contain weights of Whisper. The message is one line."""


class WhisperWeights(Struct, frozen=True, kw_only=True):
    """Names and dimensions are OpenAI's (``whisper.model.ModelDimensions``)."""

    dimensions: Mapping[str, int]
    tensors: Mapping[str, torch.Tensor]


def read(path: Path, form: Form) -> WhisperWeights:
    """Read a file of weights. Raises WeightsError if it does not hold them, and OSError."""
    return _read_openai(path) if form == "openai" else _read_ctranslate2(path)


def alignment_heads(size: str, dimensions: Mapping[str, int]) -> list[list[int]]:
    """Layer and head of the cross-attention that follows the audio in the model ``size``, from
    OpenAI's package, where they are compressed arrays."""
    array = np.frombuffer(gzip.decompress(base64.b85decode(whisper._ALIGNMENT_HEADS[size])), bool)
    shape = dimensions["n_text_layer"], dimensions["n_text_head"]
    found: list[list[int]] = np.argwhere(array.reshape(shape)).tolist()
    return found


def write_funasr_directory(
    weights: WhisperWeights, directory: Path, heads: list[list[int]]
) -> None:
    """Write ``config.yaml`` and ``model.pt`` for FunASR's class WhisperWarp into ``directory``.
    FunASR ignores the alignment ``heads``."""
    dimensions = dict(weights.dimensions)
    vocabulary = dimensions["n_vocab"]
    is_multilingual = vocabulary >= _MULTILINGUAL_VOCABULARY_MIN
    config = {
        "model": "WhisperWarp",
        "model_conf": {"hub": "funasr", "dims": dimensions, "alignment_heads": heads},
        "frontend": "WhisperFrontend",
        "frontend_conf": {"fs": 16_000, "n_mels": dimensions["n_mels"], "do_pad_trim": True},
        "tokenizer": "WhisperTokenizer",
        "tokenizer_conf": {
            "language": None,
            "task": "transcribe",
            "is_multilingual": is_multilingual,
            # As whisper.model.Whisper.num_languages.
            "num_languages": vocabulary - 51_765 - int(is_multilingual),
        },
    }
    OmegaConf.save(OmegaConf.create(config), directory / "config.yaml")
    state = {f"model.{name}": tensor.half() for name, tensor in weights.tensors.items()}
    torch.save(state, directory / "model.pt")


def _read_openai(path: Path) -> WhisperWeights:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return WhisperWeights(dimensions=found["dims"], tensors=found["model_state_dict"])
    except OSError:
        raise
    except Exception as error:  # torch raises many types.
        raise WeightsError(f"{path.name} is no checkpoint of OpenAI's Whisper") from error


def _read_ctranslate2(path: Path) -> WhisperWeights:
    try:
        variables = _variables(path)
        tensors: dict[str, torch.Tensor] = {}
        for name, value in variables.items():
            if value.ndim:  # Others are settings of the class.
                tensors |= _tensors(name, torch.from_numpy(value.copy()))
        return WhisperWeights(dimensions=_dimensions(variables), tensors=tensors)
    except (KeyError, IndexError, UnicodeDecodeError, ValueError, struct.error) as error:
        raise WeightsError(f"{path.name} is no Whisper model of CTranslate2: {error}") from error


def _variables(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    def unpacked(source: BinaryIO, form: str) -> tuple[int, ...]:
        return struct.unpack(f"<{form}", source.read(struct.calcsize(f"<{form}")))

    def text(source: BinaryIO) -> str:
        (size,) = unpacked(source, "H")
        return source.read(size).rstrip(b"\0").decode()

    found = {}
    with path.open("rb") as source:
        (version,), spec = unpacked(source, "I"), text(source)
        if (version, spec) != (_VERSION, "WhisperSpec"):
            raise ValueError(f"version {version} of {spec!r}")
        _revision, count = unpacked(source, "II")
        for _ in range(count):
            name = text(source)
            (rank,) = unpacked(source, "B")
            shape = unpacked(source, f"{rank}I")
            dtype, size = unpacked(source, "BI")
            found[name] = np.frombuffer(source.read(size), _DTYPES[dtype]).reshape(shape)
    return found


def _tensors(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    """OpenAI's tensors of CTranslate2's variable ``name``."""
    module, _, parameter = name.rpartition("/")
    if parameter == "encodings":
        return {f"{name.partition('/')[0]}.positional_embedding": value}
    if not (block := _BLOCK.fullmatch(name)):
        return {f"{_MODULES[module]}.{_PARAMETERS[parameter]}": value}
    part, number, inner, _ = block.groups()
    joined = _BLOCK_MODULES[inner]
    found = {
        f"{part}.blocks.{number}.{each}.{_PARAMETERS[parameter]}": rows.clone()
        for each, rows in zip(joined, value.chunk(len(joined)), strict=True)
    }
    # OpenAI's keys have no bias; CTranslate2 fills in zeros.
    return {each: rows for each, rows in found.items() if not each.endswith(".key.bias")}


def _dimensions(variables: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, int]:
    def layers(part: str) -> int:
        blocks = [_BLOCK.fullmatch(name) for name in variables]
        return 1 + max(int(block[2]) for block in blocks if block and block[1] == part)

    audio_ctx, audio_state = variables["encoder/position_encodings/encodings"].shape
    text_ctx, text_state = variables["decoder/position_encodings/encodings"].shape
    return {
        "n_mels": variables["encoder/conv1/weight"].shape[1],
        "n_audio_ctx": audio_ctx,
        "n_audio_state": audio_state,
        "n_audio_head": int(variables["encoder/num_heads"]),
        "n_audio_layer": layers("encoder"),
        "n_vocab": len(variables["decoder/embeddings/weight"]),
        "n_text_ctx": text_ctx,
        "n_text_state": text_state,
        "n_text_head": int(variables["decoder/num_heads"]),
        "n_text_layer": layers("decoder"),
    }
