"""Recognition in batches with the demo model on one thread, compared with single utterances."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from asr_worker.recognizer.loading import build
from asr_worker.recognizer.protocol import Recognizer, Utterance
from asr_worker.settings import WorkerSettings
from tools.lab.bench.figures import Figure
from tools.lab.digit_speech import VOICES, random_digits, speak
from wire.messages import SAMPLE_RATE_HZ

UTTERANCE_S = 2
UTTERANCES = 256
ONE_BY_ONE = 32
ROUNDS = 3
"""The best round counts: other load on the machine slows the others."""
PROMISED_RTFX = 1_000


def utterances(count: int) -> list[Utterance]:
    """Digit strings of exactly ``UTTERANCE_S`` each."""
    rng = random.Random(1)
    samples = UTTERANCE_S * SAMPLE_RATE_HZ
    made = []
    for number in range(count):
        pcm = speak(random_digits(rng, 6), VOICES[number % len(VOICES)], rng)[:samples]
        made.append(Utterance(pcm=pcm.tobytes().ljust(2 * samples, b"\0")))
    return made


def real_time_rtfx(
    recognizer: Recognizer,
    batches: Sequence[Sequence[Utterance]],
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Inverse real-time factor: seconds of audio recognised per second of ``clock``."""
    began_s = clock()
    for batch in batches:
        recognizer.recognize(batch)
    took_s = clock() - began_s
    return sum(len(batch) for batch in batches) * UTTERANCE_S / took_s


def in_batches(spoken: list[Utterance], size: int) -> list[list[Utterance]]:
    return [spoken[start : start + size] for start in range(0, len(spoken), size)]


def measure() -> list[Figure]:
    settings = WorkerSettings(asr_model="demo", asr_threads=1)
    recognizer = build(settings)
    size = settings.asr_batch_jobs_max
    spoken = utterances(UTTERANCES)
    recognizer.recognize(spoken[:size])
    batches = in_batches(spoken, size)
    by_cpu_rtfx = max(real_time_rtfx(recognizer, batches, time.process_time) for _ in range(ROUNDS))
    by_clock_rtfx = max(real_time_rtfx(recognizer, batches) for _ in range(ROUNDS))
    alone_rtfx = real_time_rtfx(recognizer, in_batches(spoken[:ONE_BY_ONE], 1), time.process_time)
    return [
        Figure(
            what=f"utterances of {UTTERANCE_S} s in batches of {size}, by processor time",
            value=by_cpu_rtfx,
            unit="× real time",
            reference=f"one by one: {alone_rtfx:,.0f} ×; batches by the clock on this machine, "
            f"with its other load: {by_clock_rtfx:,.0f} ×",
            at_least=PROMISED_RTFX,
        )
    ]
