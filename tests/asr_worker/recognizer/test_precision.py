"""Devices and precisions, on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from whisper.model import Linear

from asr_worker.recognizer import funasr_loading, precision
from asr_worker.recognizer.protocol import ModelLoadError
from asr_worker.settings import WorkerSettings, model_source
from tests.asr_worker.recognizer.comparison import load, network_of, spoken, texts
from tools.lab.random_paraformer import TINY, loaded


def test_auto_is_the_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision.available_device("auto") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert precision.available_device("auto") == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert precision.available_device("auto") == "cpu"
    assert precision.available_device("cpu") == "cpu"


@pytest.mark.parametrize(("number", "device"), [("half", "cpu"), ("int8", "cuda:0")])
def test_a_precision_that_the_device_lacks_is_refused(
    number: precision.Precision, device: str
) -> None:
    with pytest.raises(ModelLoadError, match=f"ASR_PRECISION: {number} needs") as caught:
        precision.apply(torch.nn.Linear(2, 2), number, device)
    assert caught.value.final


def test_float32_changes_nothing() -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(2, 2))
    precision.apply(layer, "float32", "cpu")
    assert type(layer[0]) is torch.nn.Linear


def test_int8_recognises_most_digits_alike() -> None:
    """With the bundled model, trained weights: rounding must not change what is heard."""
    audio = [spoken(seed) for seed in range(20)]
    expected = texts(load(Path(model_source("demo").location)), audio)
    values = WorkerSettings(asr_model="demo", asr_precision="int8")
    quantised = funasr_loading.load(values, model_source("demo"))
    layers = [type(module).__name__ for module in network_of(quantised).modules()]
    assert layers.count("Linear") > 20 and "DynamicQuantizedLinear" in str(network_of(quantised))
    same = sum(a == b for a, b in zip(texts(quantised, audio), expected, strict=True))
    assert same >= 19


def test_whispers_own_linear_layers_are_quantised() -> None:
    model = torch.nn.Sequential(Linear(64, 64))
    before = model(torch.ones(1, 64))
    precision.quantise(model)
    assert "DynamicQuantizedLinear" in str(model)
    torch.testing.assert_close(model(torch.ones(1, 64)), before, atol=0.02, rtol=0.1)


def test_half_runs_the_encoder_alone_in_half_precision() -> None:
    """Under autocast on the CPU, which computes alike, and slowly."""
    audio = [spoken(seed) for seed in range(6)]
    recognizer = load(Path(model_source("demo").location))
    expected = texts(recognizer, audio)
    seen: list[torch.dtype] = []
    encoder = network_of(recognizer).encoder
    layer = next(m for m in encoder.modules() if isinstance(m, torch.nn.Linear))
    layer.register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    precision.halve_encoder(network_of(recognizer), "cpu")
    same = sum(a == b for a, b in zip(texts(recognizer, audio), expected, strict=True))
    assert set(seen) == {torch.float16}
    assert same >= 5


def test_a_streaming_model_has_no_half_precision() -> None:
    """Its recogniser does not call the encoder as a whole, so that ``half`` would do nothing."""
    model = loaded(TINY, tokens_per_frame=0.2, spread=0.0).model
    with pytest.raises(ModelLoadError, match="half is not possible with ParaformerStreaming"):
        precision.halve_encoder(model, "cuda")


def test_whisper_has_no_half_precision() -> None:
    """Likewise: its recogniser cuts the encoder's positions and joins stored silence."""
    model = torch.nn.Module()
    model.__class__ = type("WhisperWarp", (torch.nn.Module,), {})
    model.encoder = torch.nn.Linear(2, 2)
    with pytest.raises(ModelLoadError, match="half is not possible with WhisperWarp"):
        precision.halve_encoder(model, "cuda")


def test_a_model_without_an_encoder_has_no_half_precision() -> None:
    with pytest.raises(ModelLoadError, match="half is not possible with Linear"):
        precision.halve_encoder(torch.nn.Linear(2, 2), "cuda")
