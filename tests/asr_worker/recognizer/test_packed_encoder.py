"""The packed encoder beside FunASR's, which encodes one utterance at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from asr_worker.recognizer import packed_encoder, precision
from tests.asr_worker.recognizer.comparison import load, load_plain, network_of
from tests.asr_worker.recognizer.tiny_model import FEATURES, configuration

DIFFERENCE_MAX = 2e-5
"""Outputs of the last norm range over about 3."""
FRAMES = (7, 1, 90, 33, 2, 90)


@pytest.fixture
def encoder(plain: Any) -> Any:
    return plain.model.encoder


def made(**options: Any) -> Any:
    from funasr.models.sanm.encoder import SANMEncoder

    torch.manual_seed(3)
    return SANMEncoder(FEATURES, **{**configuration()["encoder_conf"], **options}).eval()


def utterances() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(frames, FEATURES, generator=generator) for frames in FRAMES]


def assert_batch_equals_single_utterances(encoder: Any) -> None:
    spoken = utterances()
    # The padding must have no effect, whatever its values.
    batch = torch.nn.utils.rnn.pad_sequence(spoken, batch_first=True, padding_value=9.0)
    with torch.inference_mode():
        packed, lengths, _ = packed_encoder.PackedEncoder(encoder).forward(
            batch, torch.tensor(FRAMES, dtype=torch.int32)
        )
        assert lengths.tolist() == list(FRAMES)
        for row, each in zip(packed, spoken, strict=True):
            (alone,), count, _ = encoder(each[None], torch.tensor([len(each)]))
            assert int(count) == len(each)
            assert float((row[: len(each)] - alone).abs().max()) < DIFFERENCE_MAX
            assert not row[len(each) :].any()


def test_a_batch_equals_single_utterances(encoder: Any) -> None:
    assert_batch_equals_single_utterances(encoder)


@pytest.mark.parametrize("options", [{"sanm_shfit": 3}, {"kernel_size": 4}, {"output_size": 560}])
def test_a_batch_equals_single_utterances_with_other_options(options: dict[str, int]) -> None:
    assert_batch_equals_single_utterances(made(**options))


def test_quantised_layers_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    # A linear layer chooses the scale of its inputs from all of them, those of the batch.
    monkeypatch.setattr(f"{__name__}.DIFFERENCE_MAX", 0.2)
    quantised = made()
    precision.quantise(quantised)
    assert_batch_equals_single_utterances(quantised)
    assert "DynamicQuantizedLinear" in str(quantised.encoders)


def test_a_loaded_model_uses_it(tiny_model_dir: Path) -> None:
    encoder = network_of(load(tiny_model_dir)).encoder
    assert isinstance(encoder.forward.__self__, packed_encoder.PackedEncoder)


@pytest.mark.parametrize(
    "options",
    [
        {"normalize_before": False},
        {"concat_after": True},
        {"input_layer": "conv2d"},
        {"interctc_layer_idx": [2]},
        {"interctc_use_conditioning": True},
        {"positionwise_layer_type": "conv1d"},
    ],
)
def test_an_encoder_with_other_options_is_unchanged(options: dict[str, Any], plain: Any) -> None:
    other = made(**options)
    assert not packed_encoder.accelerate(other, "cpu")
    assert "forward" not in vars(other)


def test_gpus_and_other_encoders_keep_theirs(tiny_model_dir: Path) -> None:
    encoder = load_plain(tiny_model_dir).model.encoder
    assert not packed_encoder.accelerate(encoder, "cuda:0")
    assert "forward" not in vars(encoder)
    assert not packed_encoder.accelerate(None, "cpu")
