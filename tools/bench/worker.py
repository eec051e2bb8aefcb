"""Recognition in batches with the demo model on one thread, beside the same one by one."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from asr_worker.recognizer import Recognizer, Utterance, build
from asr_worker.settings import WorkerSettings
from tools.bench.figures import Figure
from tools.digit_speech import VOICES, random_digits, speak
from wire.messages import SAMPLE_RATE_HZ

UTTERANCE_S = 2
UTTERANCES = 256
ONE_BY_ONE = 32
PROMISED_X = 1_000


def utterances(count: int) -> list[Utterance]:
    """Digit strings, each of exactly ``UTTERANCE_S``."""
    rng = random.Random(1)
    samples = UTTERANCE_S * SAMPLE_RATE_HZ
    made = []
    for number in range(count):
        pcm = speak(random_digits(rng, 6), VOICES[number % len(VOICES)], rng)[:samples]
        made.append(Utterance(pcm=pcm.tobytes().ljust(2 * samples, b"\0")))
    return made


def real_time_x(recognizer: Recognizer, batches: Sequence[Sequence[Utterance]]) -> float:
    """Seconds of audio recognised in a second of processor time."""
    began_s = time.process_time()
    for batch in batches:
        recognizer.recognize(batch)
    took_s = time.process_time() - began_s
    return sum(len(batch) for batch in batches) * UTTERANCE_S / took_s


def measure() -> list[Figure]:
    settings = WorkerSettings(asr_model="demo", asr_threads=1)
    recognizer = build(settings)
    size = settings.asr_batch_jobs_max
    spoken = utterances(UTTERANCES)
    recognizer.recognize(spoken[:size])
    batched_x = real_time_x(
        recognizer, [spoken[start : start + size] for start in range(0, UTTERANCES, size)]
    )
    alone_x = real_time_x(recognizer, [[utterance] for utterance in spoken[:ONE_BY_ONE]])
    return [
        Figure(
            what=f"utterances of {UTTERANCE_S} s in batches of {size}, of one core's time",
            value=batched_x,
            unit="× real time",
            reference=f"one by one: {alone_x:,.0f} ×",
            at_least=PROMISED_X,
        )
    ]
