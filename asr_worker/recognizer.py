"""What a recogniser is to the rest of the worker: utterances in, texts out, in the same order."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog

from asr_worker.settings import WorkerSettings, model_source
from wire.messages import SAMPLE_RATE_HZ, Failure, Token

TRIAL_S = 2.0
"""Audio of an utterance of the trial at the start."""
TRIAL_JOBS = 8
"""Utterances in the trial's batch, as of a worker that is busy …"""
TRIAL_ALONE_S = 0.25
"""… unless one alone takes longer than this: then nobody waits for the trial of a batch."""
TRIAL_LEAST_S = 0.001
"""A trial that took less tells no more than this."""
RECOGNITION_FAILED = "recognition_failed"
"""Code of the failure of a single utterance that the model can't take."""


class ModelLoadError(Exception):
    """The model can't be had; the message is one line for the operator. ``final``: trying again
    can't help, a setting is wrong."""

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """Mono s16le 16 kHz ``pcm``, and what the client said about it (``""`` and ``()``: nothing)."""

    pcm: bytes
    language: str = ""
    hotwords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """Exactly one of ``text`` and ``failure`` is set. Token times count from the audio's start."""

    text: str | None
    failure: Failure | None = None
    tokens: tuple[Token, ...] = ()
    language: str = ""
    """The language that the model detected; ``""``: unknown."""
    confidence: float | None = None
    """The model's own estimate, from 0 to 1, that the text is right; None: it has none."""


class Recognizer(Protocol):
    """Belongs to one thread: the one that built it."""

    @property
    def model(self) -> str:
        """As the operator named it."""

    @property
    def device(self) -> str:
        """Where it runs, such as ``cpu`` or ``cuda:0``."""

    @property
    def can_batch(self) -> bool:
        """False once the model has shown that it takes only one utterance at a time."""

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        """One recognition for each utterance, in order. What is wrong with one utterance becomes
        its failure and leaves the others alone."""


def trial_rtfx(recognizer: Recognizer, jobs_max: int) -> float:
    """Seconds of audio per second that it recognises, in a batch of ``TRIAL_JOBS`` or, if it may
    take no more than that, of ``jobs_max``; 0 if it fails. The broker goes by this until it has
    measured more."""
    noise = np.random.default_rng(0).normal(0.0, 30.0, round(TRIAL_S * SAMPLE_RATE_HZ))
    utterance = Utterance(pcm=noise.astype("<i2").tobytes())

    def measured_rtfx(jobs: int) -> float:
        began_s = time.monotonic()
        recognizer.recognize([utterance] * jobs)
        return jobs * TRIAL_S / max(time.monotonic() - began_s, TRIAL_LEAST_S)

    try:
        measured_rtfx(1)  # The first call may allocate.
        alone_rtfx = measured_rtfx(1)
        jobs = min(TRIAL_JOBS, jobs_max) if recognizer.can_batch else 1
        if jobs == 1 or TRIAL_S / alone_rtfx > TRIAL_ALONE_S:
            return alone_rtfx
        return max(alone_rtfx, measured_rtfx(jobs), measured_rtfx(jobs))
    except Exception as error:
        structlog.get_logger().warning("trial_failed", reason=type(error).__name__)
        return 0.0


class FakeRecognizer:
    """Recognises nothing: each batch takes a fixed time, and a text is a hash of its audio.

    For load tests of everything around the model, where a hash shows a lost, doubled or
    cross-routed result just as a transcript would.
    """

    can_batch = True
    device = "none"

    def __init__(self, model: str, batch_s: float) -> None:
        self.model = model
        self._batch_s = batch_s
        structlog.get_logger().warning(
            "fake_recognizer", note="texts are hashes of the audio, nothing is recognised"
        )

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        time.sleep(self._batch_s)
        return [Recognition(text=fake_text(utterance.pcm)) for utterance in utterances]


def fake_text(pcm: bytes) -> str:
    """What the fake recogniser answers for ``pcm``."""
    return hashlib.blake2b(pcm, digest_size=8).hexdigest()


def build(settings: WorkerSettings) -> Recognizer:
    """The recogniser that ``settings`` ask for, loaded. Takes seconds; call it on the thread that
    will use it.

    Raises:
        ModelLoadError: if the model or the device is not to be had.
    """
    source = model_source(settings.asr_model)
    if source.kind == "fake":
        return FakeRecognizer(source.name, int(source.location) / 1000)
    # Imported here because torch and FunASR take seconds, which the supervisor must not spend.
    from asr_worker.funasr_recognizer import load

    return load(settings, source)
