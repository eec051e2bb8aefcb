"""The share of the workers' time that the broker keeps busy, with a recogniser of fixed service
time.

The broker and the workers are real, a batch is one utterance, and the queue is never empty. Ideal
are workers that get their next job the moment the last one is done.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict

import psutil

from asr_worker.recognizer.fake import FakeRecognizer
from asr_worker.recognizer.protocol import Utterance
from tools.lab.bench.figures import Figure
from tools.lab.bench.fleet import THREADED_MAX
from tools.lab.bench.peers import Gateway, bus_addresses, cpu_s, job_of, running

SERVICE_S = 0.05
WORKERS = (1, 2, 4, 8, 16, 32, 64)
WARM_S = 0.5
MEASURE_S = 4.0
SESSIONS = 100
PROMISED_EFFICIENCY = 95.0
PROMISED_SPEED_UP = 1.9
PCM = bytes(2_048)


def fleets(workers: int) -> list[int]:
    """The number of workers in each process."""
    whole, rest = divmod(workers, THREADED_MAX)
    return [THREADED_MAX] * whole + [rest] * bool(rest)


def jobs_per_s(workers: int) -> tuple[float, float]:
    """Jobs done per second, and the broker's processor time for one job, in seconds."""
    settings = {
        "ASR_MODEL": f"fake:{SERVICE_S * 1000:.0f}ms",
        "ASR_BATCH_JOBS_MAX": "1",
    }
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(bus_addresses())
        broker = stack.enter_context(running("-m", "broker", **bus))
        for count in fleets(workers):
            stack.enter_context(
                running("-m", "tools.lab.bench.fleet", str(count), **bus, **settings)
            )
        gateway = stack.enter_context(Gateway(bus["BROKER_FRONTEND"]))
        gateway.await_workers(workers)
        # Enough to keep the queue full until the end.
        jobs = round(workers * (WARM_S + MEASURE_S) / SERVICE_S * 1.1) + 4 * workers
        for number in range(jobs):
            gateway.send(job_of(PCM, number, sessions=SESSIONS))
        return _measured(gateway, broker)


def _measured(gateway: Gateway, broker: psutil.Process) -> tuple[float, float]:
    begin_s = time.perf_counter() + WARM_S
    end_s = begin_s + MEASURE_S
    done_s: defaultdict[str, list[float]] = defaultdict(list)
    used_s: float | None = None
    while time.perf_counter() < end_s:
        results = gateway.results()
        now_s = time.perf_counter()
        if now_s >= begin_s:
            used_s = cpu_s(broker) if used_s is None else used_s
            for result in results:
                done_s[result.worker_id].append(now_s)
    assert used_s is not None
    count = sum(map(len, done_s.values()))
    # Each worker from one completion to another: a fixed window would cut a service time.
    rate = sum((len(each) - 1) / (each[-1] - each[0]) for each in done_s.values())
    return rate, (cpu_s(broker) - used_s) / count


def bare_per_s() -> float:
    """Jobs per second of one worker's recogniser in a bare loop."""
    recognizer = FakeRecognizer(f"fake:{SERVICE_S * 1000:.0f}ms")
    began_s = time.perf_counter()
    for _ in range(20):
        recognizer.recognize([Utterance(pcm=PCM)])
    return 20 / (time.perf_counter() - began_s)


def measure() -> list[Figure]:
    bare = bare_per_s()
    rates = {workers: jobs_per_s(workers) for workers in WORKERS}
    efficiencies = {n: rate * SERVICE_S / n * 100 for n, (rate, _) in rates.items()}
    worst = min(efficiencies, key=lambda n: efficiencies[n])
    by_workers = ", ".join(f"{n}: {value:.1f}" for n, value in efficiencies.items())
    speed_up = rates[2][0] / rates[1][0]
    return [
        Figure(
            what=f"dispatch efficiency, {WORKERS[0]} to {WORKERS[-1]} workers of "
            f"{SERVICE_S * 1000:.0f} ms, the least",
            value=efficiencies[worst],
            unit="% of ideal",
            reference=f"a bare loop: {bare * SERVICE_S * 100:.1f} %; by workers: {by_workers}",
            at_least=PROMISED_EFFICIENCY,
            points=tuple((float(n), value) for n, value in efficiencies.items()),
        ),
        Figure(
            what="two such workers, over one",
            value=speed_up,
            unit="× the jobs",
            reference=f"one: {rates[1][0]:.1f} jobs/s; ideal 2.0 ×",
            at_least=PROMISED_SPEED_UP,
        ),
    ]
