"""Recordings as log mel features, computed once and kept in one file.

A clip is one recording of one or more digits, trimmed to its speech. Features are the model
frontend's own filterbank (80 log mel energies of s16 samples, a frame each 10 ms), so that
augmentation can work on them directly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr  # type: ignore[import-untyped]
import torch

from asr_worker.recognizer import funasr_repairs
from tools.lab.digit_speech import SAMPLE_RATE_HZ, Language
from tools.training.demo_model.bank import SPEECH_RMS, trim
from tools.training.demo_model.synthesis import Waveform, synthesise_digits
from tools.training.demo_model.voices import Request

funasr_repairs.import_modules(["funasr.utils.fbank"])
from funasr.utils import fbank as kaldi  # noqa: E402

MELS: Final = 80
HUMAN_FILE: Final = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)\.wav")

Features = npt.NDArray[np.float32]


class Clip(NamedTuple):
    """One recording: speaker, digits and log mel features of shape ``(frames, 80)``."""

    group: str
    speaker: str
    language: Language
    digits: str
    features: npt.NDArray[np.float16]


def log_mel(samples: Waveform) -> Features:
    """Log mel energies of mono 16 kHz samples in -1..1, as the model's frontend computes them.

    Shape ``(frames, 80)``; recordings under 25 ms give no frame.
    """
    scaled = torch.from_numpy(samples * 32768).unsqueeze(0)
    features: Features = kaldi.fbank(
        scaled,
        num_mel_bins=MELS,
        frame_length=25,
        frame_shift=10,
        dither=0.0,
        energy_floor=0.0,
        window_type="hamming",
        sample_frequency=SAMPLE_RATE_HZ,
        snip_edges=True,
    ).numpy()
    return features


def levelled(samples: Waveform) -> Waveform:
    """``samples`` brought to the bank's level and rounded to 16 bits, as a client would send."""
    rms = float(np.sqrt((samples**2).mean()))
    gain = min(SPEECH_RMS / max(rms, 1e-6), 0.95 / max(float(np.abs(samples).max()), 1e-6))
    return np.asarray(np.rint(samples * gain * 32767) / 32768, dtype=np.float32)


def synthesised_waveform(request: Request) -> Waveform | None:
    """The requested recording, trimmed and levelled; None if the engine returned silence."""
    torch.set_num_threads(1)
    samples = synthesise_digits(request.voice, request.digits, request.language)
    if len(samples) < SAMPLE_RATE_HZ // 10 or float(np.abs(samples).max()) < 1e-3:
        return None
    trimmed = trim(samples)
    return levelled(trimmed) if len(trimmed) >= SAMPLE_RATE_HZ // 10 else None


def synthesised_clip(request: Request) -> Clip | None:
    """The clip of one request, or None if the engine returned silence."""
    samples = synthesised_waveform(request)
    if samples is None:
        return None
    features = log_mel(samples).astype(np.float16)
    speaker = f"{request.voice.engine} {request.voice.name}"
    return Clip(request.group, speaker, request.language, request.digits, features)


def synthesise_all(
    requests: list[Request], processes: int, advance: Callable[[], None]
) -> list[Clip]:
    """Clips of all requests, in order; ``advance`` is called after each (for a progress bar)."""
    clips: list[Clip] = []
    with get_context("spawn").Pool(processes) as pool:
        for clip in pool.imap(synthesised_clip, requests, chunksize=8):
            if clip is not None:
                clips.append(clip)
            advance()
    return clips


def human_waveforms(directory: Path) -> Iterator[tuple[str, str, int, Waveform]]:
    """``(speaker, digit, take, samples)`` of each ``<digit>_<speaker>_<take>.wav``, 16 kHz."""
    for path in sorted(directory.glob("*.wav")):
        match = HUMAN_FILE.fullmatch(path.name)
        if match is None:
            continue
        samples, sample_rate_hz = sf.read(path, dtype="float32")
        if sample_rate_hz != SAMPLE_RATE_HZ:
            samples = soxr.resample(samples, sample_rate_hz, SAMPLE_RATE_HZ)
        rounded = np.asarray(np.rint(samples * 32767) / 32768, dtype=np.float32)
        yield match["speaker"], match["digit"], int(match["take"]), rounded


def human_clips(directory: Path) -> list[Clip]:
    """Clips of human recordings of single English digits, levelled but not trimmed further."""
    return [
        Clip("human", speaker, "en", digit, log_mel(levelled(samples)).astype(np.float16))
        for speaker, digit, _take, samples in human_waveforms(directory)
    ]


def save_clips(path: Path, clips: Iterable[Clip]) -> None:
    """Write clips to one file; see :func:`load_clips`."""
    kept = list(clips)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        labels=np.array([clip[:4] for clip in kept]),
        lengths=np.array([len(clip.features) for clip in kept]),
        features=np.concatenate([clip.features for clip in kept]),
    )


def load_clips(path: Path) -> list[Clip]:
    """Read clips that :func:`save_clips` wrote."""
    with np.load(path) as stored:
        labels, lengths, features = stored["labels"], stored["lengths"], stored["features"]
    pieces = np.split(features, np.cumsum(lengths)[:-1])
    return [
        Clip(str(group), str(speaker), "zh" if language == "zh" else "en", str(digits), piece)
        for (group, speaker, language, digits), piece in zip(labels, pieces, strict=True)
    ]
