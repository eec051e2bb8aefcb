"""Hostile peers on the bus: the broker's responses and counters."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from broker.limits import PROTOCOL_ERRORS_MAX
from tests.broker.bus_peers import Dealer, Endpoints, running_broker
from tests.broker.driving import job
from tests.conftest import EmbeddedServices
from tests.integration.raw_zmtp import RawDealer
from tests.integration.resuming_client import ResumingClient, assert_stored_once
from tests.integration.speech import chunks_of, spoken
from tools.lab.harness.metrics import scrape
from tools.lab.harness.ports import free_range
from tools.lab.harness.process import LoggedProcess
from tools.lab.harness.stack import running_stack
from wire import codec
from wire.messages import Hello, Ready, Result, Welcome, WorkerJob, WorkerResult

GATEWAY = "gateway-1"
WAIT_S = 60.0


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
    """The broker's counter, once it has reached this number. It is updated every second."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        count = scrape(metrics_port).total("asr_broker_incidents_total", reason=reason)
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
        for _ in range(PROTOCOL_ERRORS_MAX):
            liar.send(result_of(assigned, "stolen"))
        assert counted(metrics_port, "unheld_result", PROTOCOL_ERRORS_MAX) == PROTOCOL_ERRORS_MAX
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
        for _ in range(PROTOCOL_ERRORS_MAX):
            bad.send_frames(version_2)
        good.answer(good.receive(WorkerJob), "right")
        assert gateway.receive(Result).text == "right"
        assert counted(metrics_port, "back_malformed", PROTOCOL_ERRORS_MAX) == PROTOCOL_ERRORS_MAX


def test_messages_with_another_peers_name_are_dropped(
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
def endless_message(endpoint: str) -> Iterator[threading.Event]:
    """A peer that sends one message of endless frames, and reconnects when it is disconnected.
    Yields an event that is set when that happens."""

    def send() -> None:
        frame = b"x" * (256 << 10)
        while not ended.is_set():
            with suppress(OSError), RawDealer(endpoint, b"endless-1") as raw:
                try:
                    while not ended.is_set():
                        raw.send_more(frame)
                except ConnectionError:
                    disconnected.set()
            ended.wait(0.1)

    ended, disconnected = threading.Event(), threading.Event()
    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield disconnected
    finally:
        ended.set()
        sender.join(WAIT_S)


async def test_an_endless_message_at_most_restarts_the_broker_and_sessions_continue(
    embedded_services: EmbeddedServices,
) -> None:
    """At the memory limit libzmq fails to allocate a frame and disconnects the peer, or another
    allocation of the process fails and ends it."""
    endpoints = Endpoints.on_tcp()
    environment = {
        **endpoints.environment,
        "BROKER_MEMORY_MB_MAX": "256",
        "BROKER_QUEUE_AUDIO_S_MAX": "600",
    }
    urls = (embedded_services.database_url, embedded_services.redis_url)
    with running_stack(*urls, **environment) as stack:
        broker = LoggedProcess("runtime.supervisor", "broker", **stack.environment)
        stack.processes["broker"] = broker
        for name in ("asr_worker", "persistence", "gateway"):
            stack.start(name)
        stack.wait_ready()
        audio = spoken(7_400, digits=(14, 14))
        client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
        await client.connect(stack.url())
        await client.send(len(client.chunks) // 2)
        with endless_message(endpoints.frontend) as disconnected:
            assert await asyncio.to_thread(disconnected.wait, WAIT_S)
        await asyncio.to_thread(stack.wait_ready)
        await client.send()
        await client.finish()
        assert_stored_once(stack, client, audio)
        ended = [
            e for p in stack.processes.values() for e in p.events if e["event"] == "child_exited"
        ]
        assert all(event["process"] == "broker-supervisor" for event in ended)
