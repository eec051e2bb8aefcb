"""Jobs and results through the broker's process, beside a bare ``zmq.proxy`` with the same driver.

The driver is this process: one thread that is gateway and worker at once. On a machine with few
cores it and the broker share them, so the broker's own processor time is told as well.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import zmq

from tools.bench.codec import JOB
from tools.bench.figures import Figure
from wire import codec, sockets
from wire import messages as m

PAIRS = 30_000
IN_FLIGHT_MAX = 1_000
SESSIONS = 100
CREDITS = 1_000
BEAT_EVERY_S = 1.0
WAIT_MS = 30_000
PROMISED_PAIRS_PER_S = 15_000

PROXY = """
import sys, zmq
context = zmq.Context()
front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
front.bind(sys.argv[1])
back.bind(sys.argv[2])
zmq.proxy(front, back)
"""

Socket = zmq.Socket[bytes]
Answer = Callable[[list[bytes]], list[bytes]]


def answer_as_proxied(frames: list[bytes]) -> list[bytes]:
    """A worker behind a proxy sees the asker's identity first, and sends as much back."""
    return [frames[0], b"R", frames[2]]


def answer_as_worker(frames: list[bytes]) -> list[bytes]:
    job = codec.decode(frames)
    assert isinstance(job, m.WorkerJob), job
    result = m.WorkerResult(
        broker_epoch=job.broker_epoch,
        job_id=job.job_id,
        attempt=job.attempt,
        text="one two three",
        error=None,
        tokens=(),
        infer_ms=1,
    )
    return codec.encode(result)


@contextlib.contextmanager
def running(*command: str, **environment: str) -> Iterator[psutil.Process]:
    with subprocess.Popen(
        [sys.executable, *command],
        env={**os.environ, "LOG_LEVEL": "error", **environment},
    ) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def drive(
    gateway: Socket,
    worker: Socket,
    jobs: list[list[bytes]],
    answer: Answer,
    beat: Callable[[], None],
) -> float:
    """Send ``jobs`` and answer them; returns the seconds until the last answer is back."""
    poller = zmq.Poller()
    poller.register(gateway, zmq.POLLIN)
    poller.register(worker, zmq.POLLIN)
    sent = done = 0
    began_s = beat_s = time.perf_counter()
    while done < len(jobs):
        while sent < len(jobs) and sent - done < IN_FLIGHT_MAX:
            gateway.send_multipart(jobs[sent], zmq.DONTWAIT)
            sent += 1
        ready = dict(poller.poll(WAIT_MS))
        assert ready, f"nothing came back after {done} of {len(jobs)}"
        if worker in ready:
            with contextlib.suppress(zmq.Again):
                while True:
                    worker.send_multipart(answer(worker.recv_multipart(zmq.DONTWAIT)))
        if gateway in ready:
            with contextlib.suppress(zmq.Again):
                while True:
                    done += gateway.recv_multipart(zmq.DONTWAIT)[0][:1] == b"R"
        if time.perf_counter() - beat_s > BEAT_EVERY_S:
            beat_s = time.perf_counter()
            beat()
    return time.perf_counter() - began_s


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def through_broker(directory: str) -> tuple[float, float]:
    """Pairs a second, and pairs per second of the broker's processor time."""
    names = ("front", "back", "events")
    front, back, events = (f"ipc://{directory}/{name}" for name in names)
    addresses = {"BROKER_FRONTEND": front, "BROKER_BACKEND": back, "BROKER_EVENTS": events}
    jobs = [
        codec.encode(replace(JOB, session_id=f"session-{n % SESSIONS}", seq=n // SESSIONS))
        for n in range(PAIRS)
    ]
    with (
        running("-m", "broker", **addresses) as process,
        zmq.Context() as context,
        sockets.connect_dealer(context, front, "bench-gateway") as gateway,
        sockets.connect_dealer(context, back, "bench-worker") as worker,
    ):
        ready = m.Ready(worker_id="bench-worker", credits=CREDITS, model="none", device="none")

        def beat() -> None:
            gateway.send_multipart(codec.encode(m.Hello(gateway_id="bench-gateway")))
            alive = m.Heartbeat(worker_id="bench-worker", busy_ms=0)
            worker.send_multipart(codec.encode(alive))

        worker.send_multipart(codec.encode(ready))
        beat()
        for socket in (worker, gateway):
            assert socket.poll(WAIT_MS), "the broker does not answer"
        while worker.poll(0):
            worker.recv_multipart()
        before_s = cpu_s(process)
        took_s = drive(gateway, worker, jobs, answer_as_worker, beat)
        return PAIRS / took_s, PAIRS / (cpu_s(process) - before_s)


def through_proxy(directory: str) -> float:
    """Pairs a second through libzmq's own proxy."""
    front, back = f"ipc://{directory}/proxy-front", f"ipc://{directory}/proxy-back"
    jobs = [[b"J", bytes(200), JOB.pcm]] * PAIRS
    with (
        running("-c", PROXY, front, back),
        zmq.Context() as context,
        sockets.connect_dealer(context, front, "bench-gateway") as gateway,
        sockets.connect_dealer(context, back, "bench-worker") as worker,
    ):
        took_s = drive(gateway, worker, jobs, answer_as_proxied, lambda: None)
        return PAIRS / took_s


def measure() -> list[Figure]:
    # Not the usual temporary directory's long names: a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="asr-bench-") as directory:
        proxied = through_proxy(directory)
        brokered, of_one_core = through_broker(directory)
    return [
        Figure(
            what="JOB and RESULT pairs of 2 KiB through the broker",
            value=brokered,
            unit="pairs/s",
            reference=f"zmq.proxy, same driver: {proxied:,.0f} pairs/s",
            at_least=PROMISED_PAIRS_PER_S,
        ),
        Figure(
            what="the same, by the broker's own processor time",
            value=of_one_core,
            unit="pairs/s",
            reference="what one core would carry if the driver did not share it",
        ),
    ]
