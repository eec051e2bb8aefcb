"""Jobs and results through the broker's process, compared with ``zmq.proxy`` and the same driver.

The driver is this process: one thread that acts as gateway and worker. On a machine with few cores
it shares them with the broker, so the broker's own processor time is reported as well.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import zmq
from msgspec.structs import replace

from tools.lab.bench.codec import JOB
from tools.lab.bench.figures import Figure
from tools.lab.bench.peers import GATEWAY_ID, bus_addresses, cpu_s, running
from wire import codec, sockets
from wire import messages as m

PAIRS = 30_000
ROUNDS = 2
"""The best round counts: other load on the machine slows the others."""
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
for socket in (front, back):
    socket.set_hwm(100_000)  # With the default of 1,000 it drops answers silently.
front.bind(sys.argv[1])
back.bind(sys.argv[2])
zmq.proxy(front, back)
"""

SUBSCRIBER = """
import sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.setsockopt(zmq.SUBSCRIBE, b"")
socket.connect(sys.argv[1])
while True:
    socket.recv_multipart()
"""

Socket = zmq.Socket[bytes]
Answer = Callable[[list[bytes]], list[bytes]]


def answer_as_proxied(frames: list[bytes]) -> list[bytes]:
    """The answer of a worker behind a proxy: the identity of the sender, and a payload as long."""
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


def drive(
    gateway: Socket,
    worker: Socket,
    jobs: list[list[bytes]],
    answer: Answer,
    beat: Callable[[], None],
) -> float:
    """Send ``jobs`` and answer them; return the seconds until the last answer has arrived."""
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
        assert ready, f"no answer after {done} of {len(jobs)}"
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


def through_broker(*, subscriber: bool) -> tuple[float, float]:
    """Pairs per second, and pairs per second of the broker's processor time."""
    jobs = [
        codec.encode(replace(JOB, session_id=f"session-{n % SESSIONS}", seq=n // SESSIONS))
        for n in range(PAIRS)
    ]
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(bus_addresses())
        process = stack.enter_context(running("-m", "broker", **bus))
        if subscriber:
            stack.enter_context(running("-c", SUBSCRIBER, bus["BROKER_EVENTS"]))
        context = stack.enter_context(zmq.Context())
        front, back = bus["BROKER_FRONTEND"], bus["BROKER_BACKEND"]
        gateway = stack.enter_context(sockets.connect_dealer(context, front, GATEWAY_ID))
        worker = stack.enter_context(sockets.connect_dealer(context, back, "bench-worker"))
        ready = m.Ready(worker_id="bench-worker", credits=CREDITS, model="none", device="none")

        def beat() -> None:
            gateway.send_multipart(codec.encode(m.Hello(gateway_id=GATEWAY_ID)))
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
        # The kernel counts processor time in hundredths of a second.
        return PAIRS / took_s, PAIRS / max(cpu_s(process) - before_s, 0.01)


def through_proxy() -> float:
    """Pairs per second through libzmq's own proxy."""
    jobs = [[b"J", bytes(200), JOB.pcm]] * PAIRS
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(bus_addresses())
        front, back = bus["BROKER_FRONTEND"], bus["BROKER_BACKEND"]
        stack.enter_context(running("-c", PROXY, front, back))
        context = stack.enter_context(zmq.Context())
        gateway = stack.enter_context(sockets.connect_dealer(context, front, GATEWAY_ID))
        worker = stack.enter_context(sockets.connect_dealer(context, back, "bench-worker"))
        return PAIRS / drive(gateway, worker, jobs, answer_as_proxied, lambda: None)


def measure() -> list[Figure]:
    proxied = max(through_proxy() for _ in range(ROUNDS))
    rounds = [through_broker(subscriber=False) for _ in range(ROUNDS)]
    brokered, of_one_core = max(rate for rate, _ in rounds), max(rate for _, rate in rounds)
    published = max(through_broker(subscriber=True)[1] for _ in range(ROUNDS))
    return [
        Figure(
            what="JOB and RESULT pairs of 2 KiB on one core, by the broker's processor time",
            value=of_one_core,
            unit="pairs/s",
            reference="its I/O thread included; with each result published to a subscriber: "
            f"{published:,.0f} pairs/s",
            at_least=PROMISED_PAIRS_PER_S,
        ),
        Figure(
            what="the same by the clock, sharing the machine with the driver",
            value=brokered,
            unit="pairs/s",
            reference=f"zmq.proxy, same driver: {proxied:,.0f} pairs/s",
        ),
    ]
