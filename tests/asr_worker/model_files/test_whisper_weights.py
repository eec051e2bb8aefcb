"""Both published forms of Whisper's weights become the same FunASR directory."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from whisper.model import ModelDimensions, Whisper

from asr_worker.model_files import whisper_weights
from asr_worker.model_files.catalogue import Form
from asr_worker.model_files.whisper_weights import WeightsError

DIMENSIONS = ModelDimensions(
    n_mels=8,
    n_audio_ctx=16,
    n_audio_state=12,
    n_audio_head=3,
    n_audio_layer=2,
    n_vocab=51_865,
    n_text_ctx=10,
    n_text_state=12,
    n_text_head=2,
    n_text_layer=3,
)
HEADS = [[1, 0], [2, 1]]


@pytest.fixture(scope="module")
def model() -> Whisper:
    """Random weights that float16 holds exactly."""
    torch.manual_seed(0)
    made = Whisper(DIMENSIONS)
    for parameter in made.parameters():
        parameter.data = torch.randn_like(parameter).half().float()
    made.encoder.positional_embedding = made.encoder.positional_embedding.half().float()
    return made


def openai_checkpoint(model: Whisper, path: Path) -> None:
    state = {name: value.half() for name, value in model.state_dict().items()}
    torch.save({"dims": dataclasses.asdict(DIMENSIONS), "model_state_dict": state}, path)


def attention(into: dict[str, torch.Tensor], target: str, part: torch.nn.Module) -> None:
    """Self-attention joins query, key and value; cross-attention only key and value."""
    zeros = torch.zeros(part.query.out_features)
    weights = [part.query.weight, part.key.weight, part.value.weight]
    biases = [part.query.bias, zeros, part.value.bias]
    groups = [[0, 1, 2]] if "/self_attention" in target else [[0], [1, 2]]
    for number, group in enumerate(groups):
        into[f"{target}/linear_{number}/weight"] = torch.cat([weights[n] for n in group])
        into[f"{target}/linear_{number}/bias"] = torch.cat([biases[n] for n in group])
    into[f"{target}/linear_{len(groups)}/weight"] = part.out.weight
    into[f"{target}/linear_{len(groups)}/bias"] = part.out.bias


def ctranslate2_variables(model: Whisper) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}

    def norm(target: str, part: torch.nn.Module) -> None:
        found[f"{target}/layer_norm/gamma"] = part.weight
        found[f"{target}/layer_norm/beta"] = part.bias

    for side, network in (("encoder", model.encoder), ("decoder", model.decoder)):
        found[f"{side}/position_encodings/encodings"] = network.positional_embedding
        for number, block in enumerate(network.blocks):
            target = f"{side}/layer_{number}"
            norm(f"{target}/self_attention", block.attn_ln)
            attention(found, f"{target}/self_attention", block.attn)
            if side == "decoder":
                norm(f"{target}/attention", block.cross_attn_ln)
                attention(found, f"{target}/attention", block.cross_attn)
            norm(f"{target}/ffn", block.mlp_ln)
            for layer, linear in enumerate((block.mlp[0], block.mlp[2])):
                found[f"{target}/ffn/linear_{layer}/weight"] = linear.weight
                found[f"{target}/ffn/linear_{layer}/bias"] = linear.bias
    for name in ("conv1", "conv2"):
        found[f"encoder/{name}/weight"] = getattr(model.encoder, name).weight
        found[f"encoder/{name}/bias"] = getattr(model.encoder, name).bias
    norm("encoder", model.encoder.ln_post)
    norm("decoder", model.decoder.ln)
    found["decoder/embeddings/weight"] = model.decoder.token_embedding.weight
    found["encoder/num_heads"] = torch.tensor(DIMENSIONS.n_audio_head, dtype=torch.int16)
    found["decoder/num_heads"] = torch.tensor(DIMENSIONS.n_text_head, dtype=torch.int16)
    return found


def ctranslate2_model(model: Whisper, path: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    variables = ctranslate2_variables(model)
    with path.open("wb") as file:
        file.write(struct.pack("<I", 6) + text("WhisperSpec"))
        file.write(struct.pack("<II", 3, len(variables)))
        for name, value in variables.items():
            array = (value.detach().half() if value.ndim else value).numpy()
            file.write(text(name) + struct.pack("<B", array.ndim))
            file.write(struct.pack(f"<{array.ndim}I", *array.shape))
            file.write(struct.pack("<BI", 4 if array.ndim else 2, array.nbytes))
            file.write(array.tobytes())
        file.write(struct.pack("<I", 1))
        file.write(text("decoder/projection/weight") + text("decoder/embeddings/weight"))


WRITERS = {"openai": openai_checkpoint, "ctranslate2": ctranslate2_model}


@pytest.mark.parametrize("form", ["openai", "ctranslate2"])
def test_a_directory_holds_openais_weights(model: Whisper, form: Form, tmp_path: Path) -> None:
    WRITERS[form](model, tmp_path / "weights")
    weights = whisper_weights.read(tmp_path / "weights", form)
    assert weights.dimensions == dataclasses.asdict(DIMENSIONS)
    whisper_weights.write_funasr_directory(weights, tmp_path, HEADS)
    config = OmegaConf.load(tmp_path / "config.yaml")
    assert ModelDimensions(**config.model_conf.dims) == DIMENSIONS
    assert config.model_conf.alignment_heads == HEADS
    assert config.tokenizer_conf.num_languages == model.num_languages
    assert config.tokenizer_conf.is_multilingual == model.is_multilingual
    state = torch.load(tmp_path / "model.pt")
    expected = model.state_dict()
    assert state.keys() == {f"model.{name}" for name in expected}
    for name, value in expected.items():
        assert state[f"model.{name}"].dtype == torch.float16
        assert torch.equal(state[f"model.{name}"].float(), value), name


@pytest.mark.parametrize("form", ["openai", "ctranslate2"])
@pytest.mark.parametrize("content", [b"", b"<html>", b"\6\0\0\0\7\0T5Spec\0" + bytes(100)])
def test_another_file_is_refused(form: Form, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(WeightsError, match="weights is no"):
        whisper_weights.read(tmp_path / "weights", form)
