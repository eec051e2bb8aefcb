"""Convolutions of few lengths against PyTorch's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from asr_worker import convolutions

SHAPES = [
    {"kernel_size": 11, "groups": 8, "bias": False},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 7, "dilation": 2},
    {"kernel_size": 1},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [11, 16, 17, 200])
def test_results_are_pytorchs(shape: dict[str, Any], length: int) -> None:
    plain = torch.nn.Conv1d(8, 8, **shape)
    filled = torch.nn.Sequential(copy.deepcopy(plain))
    assert convolutions.fill_up(filled) == 1
    values = torch.randn(3, 8, length)
    with torch.inference_mode():
        expected, found = plain(values), filled(values)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_too_short_is_still_refused() -> None:
    filled = torch.nn.Sequential(torch.nn.Conv1d(1, 1, 11))
    convolutions.fill_up(filled)
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        filled(torch.zeros(1, 1, 10))


@pytest.mark.parametrize("other", [{"stride": 2}, {"padding_mode": "reflect"}, {"padding": "same"}])
def test_other_convolutions_are_left_alone(other: dict[str, Any]) -> None:
    assert convolutions.fill_up(torch.nn.Sequential(torch.nn.Conv1d(1, 1, 3, **other))) == 0
