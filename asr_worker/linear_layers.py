"""Linear layers on a CPU by oneDNN instead of MKL, which PyTorch takes for single precision.

On AMD processors MKL is slow. On one core of an AMD EPYC with AVX-512 a layer of the demo model
runs at 215 GFLOP/s by oneDNN and at 97 by MKL; the model as a whole takes 0.64 ms of processor
time for a second of audio instead of 0.85. Results are the same but for float rounding.

oneDNN compiles a kernel for each number of rows and keeps the last 1,024. Utterances are of any
length, so their rows are filled up to one of few numbers: with batches of random lengths the demo
model's process then takes 490 MB instead of 930, and a little less time; with batches of one
length, whose kernels are there already, a little more.
"""

from __future__ import annotations

import functools
from typing import Any

import structlog
import torch

ROWS_LEAST = 4
"""Of few rows, the number is a multiple of this."""
ROWS_STEPS = 8
"""So many numbers of rows between a power of two and the next: at most an eighth is filled up."""
_TOLERANCE = 1e-4
"""Relative, of a product of random numbers: far above rounding, far below a wrong kernel."""


def accelerate(model: torch.nn.Module) -> bool:
    """Have ``model``'s linear layers, if they are on a CPU and in single precision, computed by
    oneDNN. Whether it did."""
    layers = [
        module
        for module in model.modules()
        # Not its subclasses: they may mean something else by "linear".
        if type(module) is torch.nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype is torch.float32
    ]
    supported = bool(layers) and _onednn_agrees()
    if supported:
        for layer in layers:
            layer.forward = functools.partial(_forward, layer)
    structlog.get_logger().debug("linear_layers", onednn=supported, layers=len(layers))
    return supported


def _forward(layer: torch.nn.Linear, values: torch.Tensor) -> torch.Tensor:
    return _onednn_linear(values, layer.weight, layer.bias)


def _onednn_linear(
    values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    rows = values.reshape(-1, values.shape[-1])
    count = len(rows)
    if (full := filled_up(count)) > count:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, full - count))
    # What torch.compile calls on CPUs. Its weights need no packing: that would gain another 3 %.
    linear: Any = torch.ops.mkldnn._linear_pointwise
    product: torch.Tensor = linear(rows, weight, bias, "none", [], "")
    return product[:count].reshape(*values.shape[:-1], len(weight))


def filled_up(rows: int) -> int:
    """How many are computed of so many rows: one of few numbers."""
    power = 1 << max(0, rows - 1).bit_length()  # The next power of two.
    step = max(ROWS_LEAST, power // 2 // ROWS_STEPS)
    return max(1, -(-rows // step)) * step


def _onednn_agrees() -> bool:
    """Whether this PyTorch has the operation, and it computes what ``linear`` does."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 5, 64, generator=generator)
    weight, bias = torch.randn(32, 64, generator=generator), torch.randn(32, generator=generator)
    try:
        with torch.inference_mode():
            found = _onednn_linear(values, weight, bias)
    except (AttributeError, RuntimeError):
        return False
    expected = torch.nn.functional.linear(values, weight, bias)
    return bool(torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE))
