"""Utterances through broker and a worker process, compared with the same recogniser in a bare loop.

Rounds alternate, and the best of each counts: other load on the machine slows some rounds.
"""

from __future__ import annotations

import contextlib
import time

from asr_worker.recognizer.loading import build
from asr_worker.recognizer.protocol import Recognizer, Utterance
from asr_worker.settings import WorkerSettings
from tools.lab.bench.figures import Figure
from tools.lab.bench.peers import Gateway, bus_addresses, cpu_s, job_of, running
from tools.lab.bench.worker import UTTERANCE_S, in_batches, real_time_rtfx, utterances

UTTERANCES = 1_024
DIFFERENT = 256
ROUNDS = 3
IN_FLIGHT_MAX = 256
SESSIONS = 8
PROMISED_SHARE = 85.0


def pipeline_rtfx(gateway: Gateway, spoken: list[Utterance], first: int) -> float:
    """Inverse real-time factor of the pipeline; job numbers begin with ``first``."""
    began_s = time.perf_counter()
    sent = done = 0
    while done < len(spoken):
        while sent < len(spoken) and sent - done < IN_FLIGHT_MAX:
            gateway.send(job_of(spoken[sent].pcm, first + sent, sessions=SESSIONS, lane="bulk"))
            sent += 1
        for result in gateway.results():
            assert result.error is None, result.error
            done += 1
    return len(spoken) * UTTERANCE_S / (time.perf_counter() - began_s)


def bare_rtfx(recognizer: Recognizer, spoken: list[Utterance]) -> float:
    return real_time_rtfx(recognizer, in_batches(spoken, WorkerSettings().asr_batch_jobs_max))


def measure() -> list[Figure]:
    different = utterances(DIFFERENT)
    spoken = [different[number % DIFFERENT] for number in range(UTTERANCES)]
    recognizer = build(WorkerSettings(asr_model="demo", asr_threads=1))
    bare, piped = [bare_rtfx(recognizer, spoken)], []
    bare_used_s = worker_used_s = broker_used_s = 0.0
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(bus_addresses())
        broker = stack.enter_context(running("-m", "broker", **bus))
        settings = {"ASR_MODEL": "demo", "ASR_THREADS": "1", "OMP_NUM_THREADS": "1"}
        worker = stack.enter_context(running("-m", "asr_worker.service", **bus, **settings))
        gateway = stack.enter_context(Gateway(bus["BROKER_FRONTEND"]))
        gateway.await_workers(1)
        for turn in range(ROUNDS):
            before_s = cpu_s(worker), cpu_s(broker)
            piped.append(pipeline_rtfx(gateway, spoken, turn * len(spoken)))
            worker_used_s += cpu_s(worker) - before_s[0]
            broker_used_s += cpu_s(broker) - before_s[1]
            before_bare_s = time.process_time()
            bare.append(bare_rtfx(recognizer, spoken))
            bare_used_s += time.process_time() - before_bare_s
    ms_of_a_second = 1000 / (ROUNDS * len(spoken) * UTTERANCE_S)
    return [
        Figure(
            what=f"{UTTERANCES} utterances of {UTTERANCE_S} s through broker and worker",
            value=max(piped) / max(bare) * 100,
            unit="% of the bare loop",
            reference=f"bare batch loop {max(bare):,.0f} ×, pipeline {max(piped):,.0f} × real time",
            at_least=PROMISED_SHARE,
        ),
        Figure(
            what="the same by the worker's processor time",
            value=bare_used_s / worker_used_s * 100,
            unit="% of the bare loop",
            reference=f"for a second of audio: bare {bare_used_s * ms_of_a_second:.2f} ms, "
            f"worker {worker_used_s * ms_of_a_second:.2f} ms, "
            f"broker {broker_used_s * ms_of_a_second:.3f} ms",
        ),
    ]
