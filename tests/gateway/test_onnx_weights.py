"""Weights against what onnxruntime makes of the same file, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.onnx_weights import read_weights
from gateway.silero import model_path


def test_the_shapes_are_those_of_the_layers() -> None:
    weights = read_weights(model_path())
    assert weights["model.encoder.0.reparam_conv.weight"].shape == (128, 129, 3)
    assert weights["model.decoder.rnn.bias_hh"].shape == (512,)
    assert all(weight.dtype == "float32" for weight in weights.values())


@pytest.mark.parametrize(
    "content",
    [b"", b"\x3a", b"\x3a\x05\x2a", b"\x3f", b"\x38\x01", b"not ONNX at all"],
    ids=["empty", "no length", "too short", "no wire type", "a number for a graph", "text"],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cut off|weights|wire type|message"):
        read_weights(path)


def test_a_file_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_path().read_bytes()[:100_000])
    with pytest.raises(ValueError, match="message"):
        read_weights(path)
