"""The Silero VAD network (v6, 16 kHz) in numpy, for many frames of many streams at once.

The package's ONNX graph takes one frame of each stream per call, because a frame's recurrent step
needs the one before. But that step is a sixth of the work: the spectrum and the convolutions of a
frame need nothing but its samples. So ``encode`` does them for all frames at hand, as a few large
matrix products, and only ``advance`` goes frame by frame. That costs 8 µs a frame of processor
time on one core of an AMD EPYC (11 µs if OpenBLAS is told to do without AVX-512), where onnxruntime
takes 32 whatever the batch.

Layers, as in the graph: 4 magnitude spectra (a Hann window of 256 samples each 128), 4 convolutions
over time with ReLU (129 → 128 → 64 → 64 → 128 channels; the 2nd and 3rd halve the time, so that one
vector is left), an LSTM cell of 128 units, and a logistic unit on its output. The weights are read
from the model file of the installed ``silero_vad`` package; tests compare with onnxruntime.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.onnx_weights import read_weights
from gateway.timeline import FRAME_SAMPLES

CONTEXT_SAMPLES: Final = 64
"""Samples before a frame that the network sees with it."""
HEARD_SAMPLES: Final = CONTEXT_SAMPLES + FRAME_SAMPLES
STATE_UNITS: Final = 128
FRAMES_AT_ONCE: Final = 64
"""So that the work on one slice stays in a core's cache: 10 µs a frame, with 512 frames 14 µs."""

_WINDOW = 256
_HOP = 128
_SPECTRA = 4
_BINS = _WINDOW // 2 + 1
_REFLECTED = _SPECTRA * _HOP + _HOP - HEARD_SAMPLES
"""Samples mirrored at a frame's end to fill its last spectrum."""

Floats = npt.NDArray[np.float32]


def model_path() -> Path:
    """The model file in the installed ``silero_vad`` package, which is located but never imported:
    it would import torch."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("package silero-vad is not installed")
    return Path(spec.submodule_search_locations[0]) / "data" / "silero_vad_16k_op15.onnx"


class SileroNetwork:
    """The weights, and scratch memory: one thread at a time."""

    def __init__(self, path: Path) -> None:
        weights = read_weights(path)
        encoder = [
            (
                weights[f"model.encoder.{layer}.reparam_conv.weight"],
                weights[f"model.encoder.{layer}.reparam_conv.bias"],
            )
            for layer in range(4)
        ]
        # Times 256, which takes back the scale of a "forward" transform: without that norm numpy
        # computes in double precision, at three times the cost.
        self._hann = (_WINDOW * np.hanning(_WINDOW + 1)[:-1]).astype(np.float32)
        # As matrices from (time, channel) to channel, so that a layer is a matrix product over
        # columns that lie side by side. Where a tap would fall on padding its rows are left out.
        self._kernels = [_rows(kernel) for kernel, _ in encoder]
        self._biases = [bias for _, bias in encoder]
        self._input_gates = np.ascontiguousarray(weights["model.decoder.rnn.weight_ih"].T)
        self._state_gates = np.ascontiguousarray(weights["model.decoder.rnn.weight_hh"].T)
        self._gate_bias = (
            weights["model.decoder.rnn.bias_ih"] + weights["model.decoder.rnn.bias_hh"]
        )
        self._output = weights["model.decoder.decoder.2.weight"].reshape(STATE_UNITS)
        self._output_bias = weights["model.decoder.decoder.2.bias"][0]
        self._samples = np.empty((FRAMES_AT_ONCE, HEARD_SAMPLES + _REFLECTED), np.float32)
        self._windows = np.lib.stride_tricks.sliding_window_view(self._samples, _WINDOW, axis=1)[
            :, ::_HOP
        ]
        self._windowed = np.empty((FRAMES_AT_ONCE, _SPECTRA, _WINDOW), np.float32)
        # Any: numpy's types for "out" know double precision only.
        self._spectra: Any = np.empty((FRAMES_AT_ONCE, _SPECTRA, _BINS), np.complex64)
        self._magnitudes = np.empty((FRAMES_AT_ONCE, _SPECTRA * _BINS), np.float32)
        self._first = np.empty((FRAMES_AT_ONCE, _SPECTRA * 128), np.float32)
        self._second = np.empty((FRAMES_AT_ONCE, 2 * 64), np.float32)

    def encode(self, heard: Floats) -> Floats:
        """What the recurrent step needs of each frame, shape ``(frames, 512)``, for ``heard`` of
        shape ``(frames, HEARD_SAMPLES)`` with samples from -1 to 1."""
        encoded = np.empty((len(heard), 4 * STATE_UNITS), np.float32)
        for begin in range(0, len(heard), FRAMES_AT_ONCE):
            part = slice(begin, begin + FRAMES_AT_ONCE)
            self._convolve(self._spectrum(heard[part]), encoded[part])
        return encoded

    def advance(self, encoded: Floats, state: Floats) -> None:
        """One frame of some streams: ``state``, shape ``(streams, 2 * STATE_UNITS)``, takes in
        ``encoded``, shape ``(streams, 512)``, which is overwritten."""
        hidden, cell = state[:, :STATE_UNITS], state[:, STATE_UNITS:]
        encoded += hidden @ self._state_gates
        # In the order of PyTorch: input, forget and cell gate, output gate.
        gates = _logistic(encoded[:, : 2 * STATE_UNITS])
        candidate = np.tanh(encoded[:, 2 * STATE_UNITS : 3 * STATE_UNITS])
        candidate *= gates[:, :STATE_UNITS]
        cell *= gates[:, STATE_UNITS:]
        cell += candidate
        np.tanh(cell, out=hidden)
        hidden *= _logistic(encoded[:, 3 * STATE_UNITS :])

    def probabilities(self, hidden: Floats) -> Floats:
        """Probability of speech, for ``hidden`` parts of states after a frame each."""
        scores: Floats = np.maximum(hidden, 0) @ self._output
        return _logistic(scores + self._output_bias)

    def _spectrum(self, heard: Floats) -> Floats:
        frames = len(heard)
        samples, windowed = self._samples[:frames], self._windowed[:frames]
        samples[:, :HEARD_SAMPLES] = heard
        samples[:, HEARD_SAMPLES:] = heard[:, HEARD_SAMPLES - 2 : -_REFLECTED - 2 : -1]
        np.multiply(self._windows[:frames], self._hann, out=windowed)
        # A Fourier transform takes a quarter of the graph's convolution with its basis.
        spectra = self._spectra[:frames]
        np.fft.rfft(windowed, norm="forward", out=spectra)
        parts = spectra.view(np.float32)
        parts *= parts
        magnitudes = self._magnitudes[:frames].reshape(frames, _SPECTRA, _BINS)
        np.add(parts[..., 0::2], parts[..., 1::2], out=magnitudes)
        np.sqrt(magnitudes, out=magnitudes)
        return self._magnitudes[:frames]

    def _convolve(self, spectra: Floats, encoded: Floats) -> None:
        frames = len(spectra)
        first, second = self._first[:frames], self._second[:frames]
        kernel = self._kernels[0]
        np.matmul(spectra[:, : 2 * _BINS], kernel[_BINS:], out=first[:, :128])
        np.matmul(spectra[:, : 3 * _BINS], kernel, out=first[:, 128:256])
        np.matmul(spectra[:, _BINS:], kernel, out=first[:, 256:384])
        np.matmul(spectra[:, 2 * _BINS :], kernel[: 2 * _BINS], out=first[:, 384:])
        _bias_and_relu(first.reshape(frames, 4, 128), self._biases[0])
        kernel = self._kernels[1]
        np.matmul(first[:, :256], kernel[128:], out=second[:, :64])
        np.matmul(first[:, 128:], kernel, out=second[:, 64:])
        _bias_and_relu(second.reshape(frames, 2, 64), self._biases[1])
        third = _bias_and_relu(second @ self._kernels[2][64:], self._biases[2])
        fourth = _bias_and_relu(third @ self._kernels[3][64:128], self._biases[3])
        np.matmul(fourth, self._input_gates, out=encoded)
        encoded += self._gate_bias


def _rows(kernel: Floats) -> Floats:
    """Shape ``(outputs, inputs, taps)`` → ``(taps × inputs, outputs)``."""
    outputs, inputs, taps = kernel.shape
    return np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(taps * inputs, outputs))


def _bias_and_relu(values: Floats, bias: Floats) -> Floats:
    values += bias
    return np.maximum(values, 0, out=values)


def _logistic(values: Floats) -> Floats:
    # By tanh, which does not overflow.
    halves: Floats = np.tanh(values * np.float32(0.5))
    halves *= np.float32(0.5)
    halves += np.float32(0.5)
    return halves
