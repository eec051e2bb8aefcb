"""Measure a recogniser's throughput once, before its worker takes jobs."""

from __future__ import annotations

import time

import numpy as np
import structlog

from asr_worker.recognizer.protocol import Recognizer, Utterance
from wire.messages import SAMPLE_RATE_HZ

TRIAL_S = 2.0
"""Duration of each utterance in the trial."""
TRIAL_JOBS = 8
"""Utterances in the trial batch, typical of a loaded worker."""
TRIAL_ALONE_S = 0.25
"""A model that takes longer than this for one utterance is not tried with a batch: the worker
should start soon."""
TRIAL_S_MIN = 0.001
"""Shortest duration that a measurement is trusted with."""


def trial_rtfx(recognizer: Recognizer, jobs_max: int) -> float:
    """Return the inverse real-time factor of a batch of at most ``jobs_max``; 0 if it fails.

    The broker schedules by this value until it has measured the worker's results.
    """
    noise = np.random.default_rng(0).normal(0.0, 30.0, round(TRIAL_S * SAMPLE_RATE_HZ))
    utterance = Utterance(pcm=noise.astype("<i2").tobytes())

    def measured_rtfx(jobs: int) -> float:
        started_s = time.monotonic()
        recognizer.recognize([utterance] * jobs)
        return jobs * TRIAL_S / max(time.monotonic() - started_s, TRIAL_S_MIN)

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
