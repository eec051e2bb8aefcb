"""Linear layers by oneDNN against PyTorch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from asr_worker import linear_layers


def network() -> torch.nn.Sequential:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(560, 384), torch.nn.ReLU(), torch.nn.Linear(384, 26, bias=False)
    )


@pytest.mark.parametrize("shape", [(1, 560), (32, 33, 560), (2, 1, 560), (4, 0, 560)])
def test_results_are_pytorchs(shape: tuple[int, ...]) -> None:
    plain, accelerated = network(), network()
    assert linear_layers.accelerate(accelerated)
    values = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(accelerated(values), plain(values), rtol=1e-4, atol=1e-4)


def test_few_numbers_of_rows_are_computed() -> None:
    computed = [linear_layers.filled_up(rows) for rows in range(1, 10_001)]
    assert computed == sorted(computed)
    for rows, full in enumerate(computed, 1):
        assert (
            rows <= full < rows + max(linear_layers.ROWS_LEAST, 1 + rows / linear_layers.ROWS_STEPS)
        )
    assert len(set(computed)) < 80


def test_a_layer_that_is_not_contiguous_is_taken_as_it_is() -> None:
    plain, accelerated = network()[0], network()
    linear_layers.accelerate(accelerated)
    values = torch.randn(560, 7).T
    with torch.inference_mode():
        torch.testing.assert_close(accelerated[0](values), plain(values), rtol=1e-4, atol=1e-4)


def test_another_precision_is_left_to_pytorch() -> None:
    model = network().double()
    assert not linear_layers.accelerate(model)
    assert "forward" not in vars(model[0])


@pytest.mark.parametrize("fault", ["wrong", "missing"])
def test_without_the_operation_everything_is_left_to_pytorch(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def faulty(values: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:
        if fault == "missing":
            raise AttributeError("no such operation")
        return torch.nn.functional.linear(values, weight, bias) + 0.1

    monkeypatch.setattr(linear_layers, "_onednn_linear", faulty)
    model = network()
    assert not linear_layers.accelerate(model)
    assert "forward" not in vars(model[0])
