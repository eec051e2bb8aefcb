"""The Silero VAD network (v6, 16 kHz) as one onnxruntime graph for many frames of many streams.

The package's own graph takes one frame of each stream per run, because the recurrent step of a
frame depends on the frame before. That step is a sixth of the work; the spectrum and the
convolutions of a frame depend on its samples only. This graph, with the package's weights, computes
them for all frames in a few large matrix products. onnxruntime's LSTM, which accepts streams of
different lengths, runs the steps. The graph is four times as fast
(``python -m tools.lab.bench vad``), and its one call releases the interpreter for other threads.

Layers: 4 magnitude spectra (a Hann window of 256 samples each 128), 4 convolutions over time with
ReLU (129 → 128 → 64 → 64 → 128 channels; the 2nd and 3rd halve the time, so that one vector is
left), an LSTM of 128 units, and a logistic unit on its output. Tests compare it with the package.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from gateway.audio.timeline import FRAME_SAMPLES

CONTEXT_SAMPLES: Final = 64
"""Samples before a frame that are part of the network's input."""
STATE_UNITS: Final = 128

_WINDOW = 256
_HOP = 128
_SPECTRA = 4
_BINS = _WINDOW // 2 + 1

Floats = npt.NDArray[np.float32]
Samples = npt.NDArray[np.int16]

# F is the number of frames of all streams, S of streams, T of the longest stream's frames. Kernels
# are matrices from (time, channel) to channel, so a convolution is a product with adjacent columns.
# The rows of taps that fall on padding are left out.
_GRAPH = f"""
silero (
    int16[F, {FRAME_SAMPLES}] samples, int16[S, {CONTEXT_SAMPLES}] contexts, float[F, 1] gains,
    int64[F] context_of_frame, int64[T, S] frame_of_step, int32[S] steps,
    float[1, S, {STATE_UNITS}] hidden, float[1, S, {STATE_UNITS}] cell
) => (
    float[T, 1, S, 1] speech, float[1, S, {STATE_UNITS}] hidden_after,
    float[1, S, {STATE_UNITS}] cell_after
)
<
    int64[1] by_column = {{1}}, int64[1] back = {{-1}},
    int64[1] c0 = {{0}}, int64[1] c1 = {{1}}, int64[1] c127 = {{127}},
    int64[1] c128 = {{128}}, int64[1] c129 = {{129}}, int64[1] c256 = {{256}},
    int64[1] c258 = {{258}}, int64[1] c387 = {{387}}, int64[1] c446 = {{446}},
    int64[1] c448 = {{448}}, int64[1] c510 = {{510}}, int64[1] c512 = {{512}},
    int64[1] c513 = {{513}}, int64[1] c516 = {{516}}, int64[1] c640 = {{640}},
    int64[1] end_of_row = {{-1000}},
    int64[2] by_spectrum = {{-1, {_HOP}}}, int64[2] by_frame = {{-1, {_SPECTRA * _BINS}}}
>
{{
    # The input of each frame: its context, its samples, and its end mirrored to fill a spectrum.
    tails = Slice (samples, c448, c512, by_column)
    all_contexts = Concat <axis = 0> (contexts, tails)
    before = Gather <axis = 0> (all_contexts, context_of_frame)
    mirrored = Slice (samples, c510, c446, by_column, back)
    heard = Concat <axis = 1> (before, samples, mirrored)
    signal = Cast <to = 1> (heard)

    # Cosines are even in time around the middle of a window, sines odd, so that both need half the
    # products. The Hann window is 0 at its first sample.
    first_halves = Slice (signal, c1, c513, by_column)
    last_halves = Slice (signal, c128, c640, by_column)
    rising = Reshape (first_halves, by_spectrum)
    unturned = Reshape (last_halves, by_spectrum)
    falling = Slice (unturned, c127, end_of_row, by_column, back)
    even = Add (rising, falling)
    odd = Sub (rising, falling)
    real = MatMul (even, cosines)
    imaginary = MatMul (odd, sines)
    real_power = Mul (real, real)
    imaginary_power = Mul (imaginary, imaginary)
    power = Add (real_power, imaginary_power)
    magnitude = Sqrt (power)
    unscaled = Reshape (magnitude, by_frame)
    spectra = Mul (unscaled, gains)

    around_0 = Slice (spectra, c0, c258, by_column)
    around_1 = Slice (spectra, c0, c387, by_column)
    around_2 = Slice (spectra, c129, c516, by_column)
    around_3 = Slice (spectra, c258, c516, by_column)
    sum_0 = Gemm (around_0, kernel_0_without_first, bias_0)
    sum_1 = Gemm (around_1, kernel_0, bias_0)
    sum_2 = Gemm (around_2, kernel_0, bias_0)
    sum_3 = Gemm (around_3, kernel_0_without_last, bias_0)
    sums = Concat <axis = 1> (sum_0, sum_1, sum_2, sum_3)
    first = Relu (sums)

    begin = Slice (first, c0, c256, by_column)
    end = Slice (first, c128, c512, by_column)
    begin_sum = Gemm (begin, kernel_1_without_first, bias_1)
    end_sum = Gemm (end, kernel_1, bias_1)
    both_sums = Concat <axis = 1> (begin_sum, end_sum)
    second = Relu (both_sums)

    third_sum = Gemm (second, kernel_2_without_first, bias_2)
    third = Relu (third_sum)
    fourth_sum = Gemm (third, kernel_3_middle, bias_3)
    encoded = Relu (fourth_sum)

    in_lockstep = Gather <axis = 0> (encoded, frame_of_step)
    outputs, hidden_after, cell_after = LSTM <hidden_size = {STATE_UNITS}> (
        in_lockstep, input_gates, state_gates, gate_biases, steps, hidden, cell)
    rectified = Relu (outputs)
    score = MatMul (rectified, output)
    biased_score = Add (score, output_bias)
    speech = Sigmoid (biased_score)
}}
"""


def model_path() -> Path:
    """The model file in the installed ``silero_vad`` package. The package is located and not
    imported: it would import torch."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("package silero-vad is not installed")
    return Path(spec.submodule_search_locations[0]) / "data" / "silero_vad_16k_op15.onnx"


class SileroNetwork:
    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_mem_pattern = False  # batch sizes vary
        self._session = onnxruntime.InferenceSession(
            _model(path).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(
        self,
        samples: Samples,
        contexts: Samples,
        frames: Sequence[int],
        state: Floats,
        gains: Floats | None = None,
    ) -> tuple[list[list[float]], Floats]:
        """Probability of speech in each frame of each stream, and the new states.

        ``samples`` has shape ``(sum(frames), FRAME_SAMPLES)``, the frames of one stream after those
        of another; ``contexts`` has shape ``(streams, CONTEXT_SAMPLES)``, the samples before each
        stream's frames; ``state`` has shape ``(2, streams, STATE_UNITS)``; ``gains``, by which each
        frame is amplified, has shape ``(sum(frames),)``. Behind the probabilities
        of a stream with fewer frames than another follow meaningless ones.
        """
        gains = np.ones(len(samples), np.float32) if gains is None else gains
        steps = np.array(frames, np.int32)
        begins = np.cumsum(steps) - steps
        context_of_frame = np.arange(len(steps) - 1, len(steps) - 1 + len(samples))
        context_of_frame[begins] = np.arange(len(steps))
        frame_of_step = begins + np.arange(steps.max())[:, np.newaxis]
        speech, hidden, cell = self._session.run(
            None,
            {
                "samples": samples,
                "contexts": contexts,
                "gains": gains[:, np.newaxis],
                "context_of_frame": context_of_frame,
                "frame_of_step": np.minimum(frame_of_step, len(samples) - 1),
                "steps": steps,
                "hidden": state[:1],
                "cell": state[1:],
            },
        )
        return speech[:, 0, :, 0].T.tolist(), np.concatenate([hidden, cell])


def _model(path: Path) -> onnx.ModelProto:
    graph = onnx.parser.parse_graph(_GRAPH)
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ascontiguousarray(matrix, np.float32), name)
        for name, matrix in _matrices(path).items()
    )
    return onnx.helper.make_model(
        graph, ir_version=9, opset_imports=[onnx.helper.make_opsetid("", 18)]
    )


def _matrices(path: Path) -> dict[str, Floats]:
    """The constants of ``_GRAPH``, from the weights in the file."""
    weights: dict[str, Floats] = {
        tensor.name.removeprefix("model."): onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(path).graph.initializer
    }
    kernels = [_rows(weights[f"encoder.{layer}.reparam_conv.weight"]) for layer in range(4)]
    biases = {f"bias_{n}": weights[f"encoder.{n}.reparam_conv.bias"] for n in range(4)}
    gate_biases = [_gates(weights[f"decoder.rnn.bias_{kind}"]) for kind in ("ih", "hh")]
    cosines, sines = _half_transforms()
    scale = 1 / 32768
    return biases | {
        "cosines": scale * cosines,
        "sines": scale * sines,
        "kernel_0": kernels[0],
        "kernel_0_without_first": kernels[0][_BINS:],
        "kernel_0_without_last": kernels[0][: 2 * _BINS],
        "kernel_1": kernels[1],
        "kernel_1_without_first": kernels[1][128:],
        "kernel_2_without_first": kernels[2][64:],
        "kernel_3_middle": kernels[3][64:128],
        "input_gates": _gates(weights["decoder.rnn.weight_ih"])[np.newaxis],
        "state_gates": _gates(weights["decoder.rnn.weight_hh"])[np.newaxis],
        "gate_biases": np.concatenate(gate_biases)[np.newaxis],
        "output": weights["decoder.decoder.2.weight"].reshape(STATE_UNITS, 1),
        "output_bias": weights["decoder.decoder.2.bias"],
    }


def _half_transforms() -> tuple[Floats, Floats]:
    """From samples 1 to 128 of a window, the others added to them or taken from them, to the real
    and the imaginary part of its spectrum; each of shape ``(_HOP, _BINS)``."""
    times = np.arange(1, _HOP + 1)[:, np.newaxis]
    window = np.hanning(_WINDOW + 1)[times]
    window[-1] /= 2  # the middle is added to itself
    angles = 2 * np.pi / _WINDOW * times * np.arange(_BINS)
    return window * np.cos(angles), window * np.sin(angles)


def _gates(of_pytorch: Floats) -> Floats:
    """From PyTorch's order (input, forget, cell, output) to that of ONNX."""
    into, forget, cell, out = np.split(of_pytorch, 4)
    return np.concatenate([into, out, forget, cell])


def _rows(kernel: Floats) -> Floats:
    """Shape ``(outputs, inputs, taps)`` → ``(taps × inputs, outputs)``."""
    outputs, inputs, taps = kernel.shape
    return kernel.transpose(2, 1, 0).reshape(taps * inputs, outputs)
