"""Kaldi's log-mel features for a whole batch at once.

FunASR computes them utterance by utterance with kaldi-native-fbank, which for the demo model is
more than half of all work. Here the frames of a batch go through one FFT. Same definition, same
windows and filters (Kaldi, ``feature-window.cc`` and ``mel-computations.cc``); values differ from
Kaldi's by float rounding only: at most 0.002 (natural logarithm) on 500 utterances of speech.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch

_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0
_LOG_FLOOR = 1.1920928955078125e-07
"""Kaldi's floor, the float32 epsilon."""
_FRAMES_AT_ONCE = 512
"""So that the work on one slice stays in a core's cache."""


def accelerate(frontend: Any) -> bool:
    """Have FunASR's ``WavFrontend`` compute its features by this module, if it is one whose
    options this module knows. Whether it did."""
    supported = (
        type(frontend).__name__ == "WavFrontend"
        and frontend.dither == 0.0
        and frontend.snip_edges
        and frontend.window == "hamming"
    )
    if supported:
        frontend.forward = BatchedFrontend(frontend).forward
    structlog.get_logger().debug("features", batched=supported)
    return bool(supported)


class BatchedFrontend:
    """Takes the place of ``WavFrontend.forward``; its other options are read from ``frontend``."""

    def __init__(self, frontend: Any) -> None:
        self._original = frontend.forward
        self._frontend = frontend
        self._window_samples = frontend.frame_length * frontend.fs // 1000
        self._shift_samples = frontend.frame_shift * frontend.fs // 1000
        self._fft_samples = 1 << (self._window_samples - 1).bit_length()
        self._window = torch.from_numpy(_hamming(self._window_samples))
        filters = mel_filters(frontend.n_mels, self._fft_samples, frontend.fs)
        self._filters = torch.from_numpy(filters)

    def forward(
        self, waveforms: torch.Tensor, lengths: Any, **_options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of padded ``waveforms``, shape ``(batch, samples)``, of which ``lengths``
        samples count: shape ``(batch, frames, n_mels × lfr_m)`` and the frames of each."""
        from funasr.frontends.wav_frontend import apply_cmvn, apply_lfr

        lengths = [int(length) for length in lengths]
        if min(lengths) < self._window_samples:
            result: tuple[torch.Tensor, torch.Tensor] = self._original(waveforms, lengths)
            return result
        scale = float(1 << 15) if self._frontend.upsacle_samples else 1.0
        frames = [
            waveform[:length].unfold(0, self._window_samples, self._shift_samples)
            for waveform, length in zip(waveforms, lengths, strict=True)
        ]
        energies = self._log_mel(torch.cat(frames) * scale)
        features = []
        for matrix in torch.split(energies, [len(each) for each in frames]):
            if self._frontend.lfr_m != 1 or self._frontend.lfr_n != 1:
                matrix = apply_lfr(matrix, self._frontend.lfr_m, self._frontend.lfr_n)
            if self._frontend.cmvn is not None:
                matrix = apply_cmvn(matrix, self._frontend.cmvn)
            features.append(matrix)
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        return padded, torch.as_tensor([len(matrix) for matrix in features])

    def _log_mel(self, frames: torch.Tensor) -> torch.Tensor:
        """Shape ``(frames, window)`` → ``(frames, n_mels)``; overwrites ``frames``."""
        slices = []
        for part in torch.split(frames, _FRAMES_AT_ONCE):
            part -= part.mean(dim=1, keepdim=True)
            # Kaldi's first sample has itself as its predecessor.
            before = torch.cat([part[:, :1], part[:, :-1]], dim=1)
            part.sub_(before, alpha=_PREEMPHASIS).mul_(self._window)
            spectrum = torch.view_as_real(torch.fft.rfft(part, n=self._fft_samples))
            power = spectrum.square_().sum(dim=2)
            slices.append((power @ self._filters).clamp_(min=_LOG_FLOOR).log_())
        return torch.cat(slices)


def _hamming(samples: int) -> npt.NDArray[np.float32]:
    window: npt.NDArray[np.float32] = np.hamming(samples).astype(np.float32)
    return window


def mel_filters(count: int, fft_samples: int, sample_rate_hz: int) -> npt.NDArray[np.float32]:
    """Kaldi's triangular filters, shape ``(fft_samples // 2 + 1, count)``; the Nyquist bin has
    no weight in any."""
    edges = np.linspace(_mel(_LOWEST_HZ), _mel(sample_rate_hz / 2), count + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins = _mel(np.arange(fft_samples // 2) * sample_rate_hz / fft_samples)[:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: npt.NDArray[np.float32] = np.vstack([triangles, np.zeros(count)]).astype(np.float32)
    return filters


def _mel(hz: Any) -> Any:
    return 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)
