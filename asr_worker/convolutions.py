"""One-dimensional convolutions on a CPU, computed for few lengths.

oneDNN compiles a kernel for each length, and keeps it, as it does for linear layers
(``asr_worker.linear_layers``). A convolution's output at a place depends on what is near it, so
zeros behind the end, where its own padding has zeros anyhow, change nothing before.
"""

from __future__ import annotations

import functools

import torch

from asr_worker.linear_layers import filled_up


def fill_up(model: torch.nn.Module) -> int:
    """Have ``model``'s convolutions, as far as that cannot change what they compute, work on few
    lengths. How many they are."""
    layers = [module for module in model.modules() if _can_be_filled_up(module)]
    for layer in layers:
        layer.forward = functools.partial(_forward, layer)
    return len(layers)


def _can_be_filled_up(module: torch.nn.Module) -> bool:
    return (
        type(module) is torch.nn.Conv1d
        and module.weight.device.type == "cpu"
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.stride == (1,)
    )


def _forward(layer: torch.nn.Conv1d, values: torch.Tensor) -> torch.Tensor:
    length = values.shape[-1]
    reach = layer.dilation[0] * (layer.kernel_size[0] - 1)
    convolved_length = length + 2 * int(layer.padding[0]) - reach
    if convolved_length < 1:
        return torch.nn.Conv1d.forward(layer, values)  # Which raises.
    if (full := filled_up(length)) > length:
        values = torch.nn.functional.pad(values, (0, full - length))
    return torch.nn.Conv1d.forward(layer, values)[..., :convolved_length]
