"""Hostile peers on the bus: what the broker does with it, and what it counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from broker.endless import ARRIVED_BYTES_MAX
from broker.limits import OFFENCES_MAX
from tests.broker.bus_peers import Dealer, Endpoints, running_broker
from tests.broker.driving import job
from tests.integration.raw_zmtp import RawDealer
from tools.lab.fuzz.observe import look
from tools.ops.ports import free_range
from wire import codec
from wire.messages import Hello, Ready, Result, Welcome, WorkerJob, WorkerResult

GATEWAY = "gateway-1"
WAIT_S = 20.0


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_range(100)


@pytest.fixture
def endpoints(tmp_path: Path, metrics_port: int) -> Iterator[Endpoints]:
    found = Endpoints.under(tmp_path)
    settings = {"BROKER_LEASE_S": "60", "REDIS_URL": "unix:///nonexistent/redis.sock"}
    with running_broker(found, METRICS_PORT=str(metrics_port), **settings):
        yield found


@pytest.fixture
def gateway(endpoints: Endpoints) -> Iterator[Dealer]:
    with Dealer(endpoints.frontend, GATEWAY) as dealer:
        dealer.send(Hello(gateway_id=GATEWAY))
        dealer.receive(Welcome)
        yield dealer


def counted(metrics_port: int, reason: str, at_least: int = 1) -> int:
    """The broker's counter, once it shows so many: it does so every second."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        count = look(metrics_port).total("asr_broker_incidents_total", reason=reason)
        if count >= at_least:
            return int(count)
        assert time.monotonic() < deadline_s, f"{reason}: {count} counted"
        time.sleep(0.05)


def result_of(assigned: WorkerJob, text: str, **changes: int) -> WorkerResult:
    return WorkerResult(
        broker_epoch=assigned.broker_epoch,
        job_id=changes.get("job_id", assigned.job_id),
        attempt=changes.get("attempt", assigned.attempt),
        text=text,
        error=None,
        tokens=(),
        infer_ms=1,
    )


def test_results_for_the_jobs_of_others_lead_to_quarantine(
    endpoints: Endpoints, gateway: Dealer, metrics_port: int
) -> None:
    with (
        Dealer(endpoints.backend, "worker-honest") as honest,
        Dealer(endpoints.backend, "worker-liar") as liar,
    ):
        honest.ready()
        honest.receive(Welcome)
        gateway.send(job(0))
        assigned = honest.receive(WorkerJob)
        liar.ready()
        liar.receive(Welcome)
        for _ in range(OFFENCES_MAX):
            liar.send(result_of(assigned, "stolen"))
        assert counted(metrics_port, "unheld_result", OFFENCES_MAX) == OFFENCES_MAX
        assert counted(metrics_port, "worker_quarantined") == 1
        liar.ready()
        assert counted(metrics_port, "quarantined") == 1
        honest.answer(assigned, "right")
        assert gateway.receive(Result).text == "right"


def test_malformed_messages_lead_a_worker_to_quarantine_and_its_job_to_another(
    endpoints: Endpoints, gateway: Dealer, metrics_port: int
) -> None:
    with (
        Dealer(endpoints.backend, "worker-bad") as bad,
        Dealer(endpoints.backend, "worker-good") as good,
    ):
        bad.ready()
        bad.receive(Welcome)
        gateway.send(job(0))
        assigned = bad.receive(WorkerJob)
        good.ready()
        good.receive(Welcome)
        tag, header = codec.encode(result_of(assigned, "x"))
        version_2 = [tag[:1] + b"\2", header]
        for _ in range(OFFENCES_MAX):
            bad.send_frames(version_2)
        good.answer(good.receive(WorkerJob), "right")
        assert gateway.receive(Result).text == "right"
        assert counted(metrics_port, "back_malformed", OFFENCES_MAX) == OFFENCES_MAX


def test_names_of_others_are_not_taken(
    endpoints: Endpoints, gateway: Dealer, metrics_port: int
) -> None:
    with (
        Dealer(endpoints.frontend, "hostile-1") as stranger,
        Dealer(endpoints.backend, "hostile-2") as pretender,
        Dealer(endpoints.backend, "worker-1") as worker,
    ):
        stranger.send(Hello(gateway_id=GATEWAY))
        pretender.send(Ready(worker_id="worker-1", credits=9, model="evil", device="cpu"))
        assert counted(metrics_port, "identity_mismatch") == 1
        assert counted(metrics_port, "bad_ready") == 1
        worker.ready()
        worker.receive(Welcome)
        gateway.send(job(0))
        worker.answer(worker.receive(WorkerJob), "right")
        assert gateway.receive(Result).text == "right"
        assert not pretender.socket.poll(0) and not stranger.socket.poll(0)


@contextmanager
def endless_messages(endpoints: Endpoints) -> Iterator[threading.Event]:
    """A peer of each socket that sends frame after frame of one message, gently and without end;
    set once every one of them was cut off."""
    all_cut = threading.Event()

    def send(raw: RawDealer) -> None:
        frame = b"x" * (256 << 10)
        with suppress(OSError):
            while not ended.is_set():
                raw.send_more(frame)
                time.sleep(0.002)

    def watch() -> None:
        for sender in senders:
            sender.join()
        all_cut.set()

    ended = threading.Event()
    with (
        RawDealer(endpoints.frontend, b"endless-1") as front,
        RawDealer(endpoints.backend, b"endless-2") as back,
    ):
        senders = [threading.Thread(target=send, args=(raw,)) for raw in (front, back)]
        threads = [*senders, threading.Thread(target=watch)]
        for thread in threads:
            thread.start()
        try:
            yield all_cut
        finally:
            ended.set()
            for thread in threads:
                thread.join(WAIT_S)


def test_messages_that_never_end_cost_their_senders_the_connection(metrics_port: int) -> None:
    endpoints = Endpoints.on_tcp()
    settings = {"BROKER_LEASE_S": "60", "REDIS_URL": "unix:///nonexistent/redis.sock"}
    with (
        running_broker(endpoints, METRICS_PORT=str(metrics_port), **settings) as broker,
        Dealer(endpoints.frontend, GATEWAY) as gateway,
        Dealer(endpoints.backend, "worker-1") as worker,
    ):
        gateway.send(Hello(gateway_id=GATEWAY))
        gateway.receive(Welcome)
        worker.ready()
        worker.receive(Welcome)
        before = resident_bytes(broker.pid)
        descriptors = psutil.Process(broker.pid).num_fds()
        with endless_messages(endpoints) as all_cut:
            most, seq = 0, 0
            deadline_s = time.monotonic() + WAIT_S
            while not all_cut.is_set():
                assert time.monotonic() < deadline_s
                # A gateway that sends more than the limit is not suspected for long.
                gateway.send(job(seq, audio_ms=10_000))
                worker.answer(worker.receive(WorkerJob), f"text {seq}")
                assert gateway.receive(Result).text == f"text {seq}"
                most, seq = max(most, resident_bytes(broker.pid)), seq + 1
        assert counted(metrics_port, "endless_message", 2) == 2
        assert seq * 320_000 > 2 * ARRIVED_BYTES_MAX
        assert most - before < 40 * ARRIVED_BYTES_MAX
        # What libzmq kept is freed, and looking for it cost no descriptor.
        while psutil.Process(broker.pid).num_fds() > descriptors:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        while resident_bytes(broker.pid) - before > 4 * ARRIVED_BYTES_MAX:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)


def resident_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)
