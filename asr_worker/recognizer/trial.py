"""Measure a recogniser once, before its worker takes jobs: best batch size and cost."""

from __future__ import annotations

import time

import numpy as np
import structlog
from msgspec import Struct

from asr_worker.batching import BatchLimits
from asr_worker.recognizer.protocol import ModelLoadError, Recognizer, Utterance
from wire.messages import SAMPLE_RATE_HZ, STREAMED_PARTIAL_MS, Cost

TRIAL_S = 2.0
"""Duration of each utterance in the trial."""
SHORT_S = 0.5
"""Duration of the utterance that separates the cost of an utterance from that of a second."""
BATCH_SIZES = (2, 8, 32, 128)
"""Batch sizes tried, each only if the one before was not clearly slower."""
BATCH_S_MAX = 5.0
"""A batch expected to take longer is not tried: the worker should start soon."""
SLOWER = 1.25
"""A batch size whose time for an utterance exceeds the best by this factor ends the trial."""
STREAMED_BATCH_S_MAX = 0.5
"""Longest batch of partial results of a streaming model: a final that arrives waits for it."""
REPEATS_MAX = 3
"""Runs of each measurement, the fastest of which counts …"""
REPEATS_S_MAX = 0.3
"""… unless they take longer than this together."""
TRIAL_S_MIN = 0.001
"""Lower bound of a measured duration."""


class Trial(Struct, frozen=True, kw_only=True):
    limits: BatchLimits
    """``jobs_max`` is the batch size with the best throughput."""
    throughput_rtfx: float
    """Seconds of audio recognised per second in batches of that size."""


def measure(recognizer: Recognizer, jobs_max: int, audio_ms_max: int) -> Trial:
    """Measure ``recognizer`` with batches of at most ``jobs_max`` and the model's own limit.
    ``audio_ms_max`` is a limit of the result.

    The trial takes at most a few times BATCH_S_MAX, or three utterances of a slower model.

    Raises:
        ModelLoadError: if the model cannot recognise a single utterance.
    """
    try:
        _run_s(recognizer, TRIAL_S, 1)  # The first call may allocate.
        short_s = _fastest_s(recognizer, SHORT_S, 1)
        alone_s = _fastest_s(recognizer, TRIAL_S, 1)
        streamed_jobs, streamed_s = _streamed(recognizer, jobs_max)
    except Exception as error:
        message = f"model {recognizer.model!r} can't recognise speech: {error}".splitlines()[0]
        raise ModelLoadError(message, final=True) from error
    batch_jobs, each_s = _best_batch(recognizer, alone_s, jobs_max)
    limits = BatchLimits(
        jobs_max=batch_jobs,
        audio_ms_max=audio_ms_max,
        cost=_cost(short_s, alone_s, each_s, batch_jobs),
        streamed_jobs_max=streamed_jobs,
        streamed_s=streamed_s,
    )
    return Trial(limits=limits, throughput_rtfx=TRIAL_S / each_s)


def _cost(short_s: float, alone_s: float, each_s: float, batch_jobs: int) -> Cost:
    """Return the cost that fits the three measurements: a short utterance, a longer one, and the
    latter's share of a batch. The time that a batch saves is its fixed cost."""
    saved_s = alone_s - each_s
    batch_s = min(saved_s * batch_jobs / (batch_jobs - 1), alone_s) if batch_jobs > 1 else 0.0
    rest_s = alone_s - batch_s
    second_s = min(max(alone_s - short_s, 0.0) / (TRIAL_S - SHORT_S), rest_s / TRIAL_S)
    return Cost(batch_s=batch_s, utterance_s=rest_s - TRIAL_S * second_s, second_s=second_s)


def _best_batch(recognizer: Recognizer, alone_s: float, jobs_max: int) -> tuple[int, float]:
    """Return the best batch size and its time for one utterance."""
    jobs_max = min(jobs_max, recognizer.abilities.batch_jobs)
    best_jobs, best_s = 1, alone_s
    for jobs in sorted({min(size, jobs_max) for size in BATCH_SIZES} - {1}):
        if jobs * best_s > BATCH_S_MAX:
            break
        try:
            each_s = _fastest_s(recognizer, TRIAL_S, jobs) / jobs
        except Exception as error:
            structlog.get_logger().warning("trial_batch_failed", jobs=jobs, reason=str(error))
            break
        if each_s > SLOWER * best_s:
            break
        if each_s < best_s:
            best_jobs, best_s = jobs, each_s
    return best_jobs, best_s


def _streamed(recognizer: Recognizer, jobs_max: int) -> tuple[int, float]:
    """Return the number of partial results that a batch recognises in STREAMED_BATCH_S_MAX, and the
    time for each; zeros if the model does not stream."""
    if not recognizer.abilities.streaming:
        return 0, 0.0
    jobs, each_s = 0, 0.0
    while jobs < jobs_max and (jobs + 1) * each_s <= STREAMED_BATCH_S_MAX:
        affordable = int(STREAMED_BATCH_S_MAX / each_s) if each_s else 1
        jobs = min(max(1, 4 * jobs), affordable, jobs_max)
        batch_s = _fastest_s(recognizer, STREAMED_PARTIAL_MS / 1000, jobs, partial=True)
        each_s = batch_s / jobs
    return max(1, min(jobs, int(STREAMED_BATCH_S_MAX / each_s))), each_s


def _fastest_s(
    recognizer: Recognizer, audio_s: float, jobs: int, *, partial: bool = False
) -> float:
    times_s: list[float] = []
    while len(times_s) < REPEATS_MAX and sum(times_s) < REPEATS_S_MAX:
        times_s.append(_run_s(recognizer, audio_s, jobs, partial=partial))
    return min(times_s)


def _run_s(recognizer: Recognizer, audio_s: float, jobs: int, *, partial: bool = False) -> float:
    """Time a batch of ``jobs`` utterances of faint noise. ValueError: one of them fails.

    On a CPU its processor time counts if that is less. Otherwise other programs, such as workers
    that start at the same time, could make batches look slow, and this worker would keep to small
    ones until it ends.
    """
    noise = np.random.default_rng(0).normal(0.0, 30.0, round(audio_s * SAMPLE_RATE_HZ))
    batch = [Utterance(pcm=noise.astype("<i2").tobytes(), partial=partial)] * jobs
    started_s, used_s = time.monotonic(), time.process_time()
    recognitions = recognizer.recognize(batch)
    took_s = time.monotonic() - started_s
    if recognizer.device == "cpu":
        took_s = min(took_s, time.process_time() - used_s)
    if failures := [each.failure for each in recognitions if each.failure is not None]:
        raise ValueError(failures[0].message)
    return max(took_s, TRIAL_S_MIN)
