"""``ASR_DEVICE=auto`` and ``ASR_PRECISION``: the device of a model, and its number formats."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch

from asr_worker.recognizer.protocol import ModelLoadError

Precision = Literal["float32", "half", "int8"]


def available_device(setting: str) -> str:
    """The device for ``setting``: for ``auto`` the first GPU, else the CPU.

    FunASR would silently fall back to the CPU. Here a missing GPU is an error.

    Raises:
        ModelLoadError: if the device is not available.
    """
    if setting == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if setting != "cpu":
        with contextlib.suppress(RuntimeError, AssertionError, AttributeError):
            torch.empty(1, device=setting)
            return setting
        raise ModelLoadError(f"ASR_DEVICE: {setting} is not available on this machine", final=True)
    return setting


def apply(model: Any, precision: Precision, device: str) -> None:
    """Change ``model``, a FunASR model on ``device``, to compute with ``precision``.

    ``int8`` quantises the weights of linear layers and, at each call, their inputs; CPUs only.
    ``half`` runs the encoder, which does most of the work, under autocast to float16; GPUs only:
    CPUs are slower with it. The rest of a model stays in float32, as FunASR's alignment of frames
    to tokens fails in half precision.

    Raises:
        ModelLoadError: if the device or the model does not support it.
    """
    is_cpu = device == "cpu"
    if precision == "int8":
        if not is_cpu:
            raise ModelLoadError("ASR_PRECISION: int8 needs ASR_DEVICE=cpu", final=True)
        quantise(model)
    elif precision == "half":
        if is_cpu:
            raise ModelLoadError("ASR_PRECISION: half needs a GPU (ASR_DEVICE)", final=True)
        halve_encoder(model, device.partition(":")[0])


def quantise(model: torch.nn.Module) -> None:
    """Replace the linear layers of ``model`` by dynamically quantised ones. torch warns that these
    will move to another package (pytorch/pytorch issue 184982)."""
    for module in model.modules():
        # Whisper's own class of linear layers only casts weights, and would not be replaced.
        if isinstance(module, torch.nn.Linear) and type(module).__module__.startswith("whisper."):
            module.__class__ = torch.nn.Linear
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.ao.quantization.quantize_dynamic(
            model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
        )


_ENCODED_BY_LAYER = frozenset({"ParaformerStreaming", "WhisperWarp"})
"""Models whose recogniser calls the layers of the encoder, not the encoder."""


def halve_encoder(model: Any, device_type: str) -> None:
    """Run the encoder of ``model`` under autocast to float16. Raises ModelLoadError if it has none,
    or is one of ``_ENCODED_BY_LAYER``."""
    encoder: Any = getattr(getattr(model, "model", model), "encoder", None)
    name = type(model).__name__
    if encoder is None or name in _ENCODED_BY_LAYER:
        raise ModelLoadError(f"ASR_PRECISION: half is not possible with {name}", final=True)
    encoder.forward = _autocast(encoder.forward, device_type)


def _autocast(forward: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    @functools.wraps(forward)
    def autocast(*arguments: Any, **options: Any) -> Any:
        with torch.autocast(device_type, torch.float16):
            return _float32(forward(*arguments, **options))

    return autocast


def _float32(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_float32, value))
    is_half = isinstance(value, torch.Tensor) and value.dtype == torch.float16
    return value.float() if is_half else value
