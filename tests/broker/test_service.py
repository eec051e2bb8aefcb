"""The broker's loop as a process, with real sockets."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import zmq

from runtime import exit_codes
from tests.broker.bus_peers import Dealer, Endpoints, Subscriber, running_broker
from tests.broker.driving import job
from tests.conftest import EmbeddedServices
from tools.lab.harness.process import LoggedProcess, wait_until
from wire import codec
from wire.messages import (
    Cancel,
    Hello,
    Load,
    PublishedRecord,
    PublishedResult,
    Record,
    Result,
    Stored,
    StoredKey,
    Welcome,
    WorkerJob,
)

NO_REDIS = {"REDIS_URL": "unix:///nonexistent/redis.sock"}
GATEWAY = "gateway-1"


@pytest.fixture
def endpoints(tmp_path: Path) -> Endpoints:
    return Endpoints.under(tmp_path)


@pytest.fixture
def broker(endpoints: Endpoints) -> Iterator[LoggedProcess]:
    # The peers of these tests send no heartbeats.
    with running_broker(endpoints, BROKER_LEASE_S="60", **NO_REDIS) as process:
        yield process


@pytest.fixture
def gateway(endpoints: Endpoints, broker: LoggedProcess) -> Iterator[Dealer]:
    with Dealer(endpoints.frontend, GATEWAY) as dealer:
        dealer.send(Hello(gateway_id=GATEWAY))
        dealer.receive(Welcome)
        yield dealer


@pytest.fixture
def worker(endpoints: Endpoints, broker: LoggedProcess) -> Iterator[Dealer]:
    with Dealer(endpoints.backend, "worker-1") as dealer:
        dealer.ready()
        dealer.receive(Welcome)
        yield dealer


def check_round_trip(gateway: Dealer, worker: Dealer, seq: int) -> None:
    gateway.send(job(seq))
    assigned = worker.receive(WorkerJob)
    assert assigned.pcm == job(seq).pcm
    worker.answer(assigned, f"text {seq}")
    result = gateway.receive(Result)
    assert (result.seq, result.text, result.worker_id) == (seq, f"text {seq}", worker.identity)


def test_job_and_result(gateway: Dealer, worker: Dealer) -> None:
    for seq in range(5):
        check_round_trip(gateway, worker, seq)


def test_load_is_sent(gateway: Dealer, worker: Dealer) -> None:
    while (load := gateway.receive(Load)).workers == 0:
        pass
    assert (load.workers, load.models, load.queued) == (1, ("demo",), 0)


def test_publications_and_their_confirmation(
    endpoints: Endpoints, gateway: Dealer, worker: Dealer
) -> None:
    with Subscriber(endpoints.events) as subscriber:
        record = Record(session_id="session", record_seq=0, body={"type": "x"})
        # Until the subscription arrives, records are counted and dropped.
        while not subscriber.socket.poll(50):
            gateway.send(record)
        sequence, published = subscriber.receive()
        assert isinstance(published, PublishedRecord)
        assert (published.gateway_id, published.record) == (GATEWAY, record)
        check_round_trip(gateway, worker, 0)
        while not isinstance(published, PublishedResult):
            before = sequence
            sequence, published = subscriber.receive()
            assert sequence == before + 1
        assert published.result.text == "text 0"
    with Dealer(endpoints.frontend, "persistence-1") as persistence:
        keys = (StoredKey(session_id="session", kind="result", seq=0),)
        persistence.send(Stored(gateway_id=GATEWAY, keys=keys))
        assert gateway.receive(Stored).keys == keys


def _counted(reason: str, incidents: dict[str, Any]) -> bool:
    return reason in incidents["counts"]


def test_a_failed_job_is_logged_with_its_session(
    broker: LoggedProcess, gateway: Dealer, worker: Dealer
) -> None:
    gateway.send(job(0))
    worker.fail(worker.receive(WorkerJob), "recognition_failed")
    failed = broker.event("job_failed")
    assert failed["session_id"] == job(0).session_id
    assert (failed["segment_index"], failed["outcome"]) == (0, "recognition_failed")


def test_what_happens_in_normal_work_is_counted_and_not_logged(
    broker: LoggedProcess, gateway: Dealer
) -> None:
    gateway.send(job(0))
    gateway.send(Cancel(session_id=job(0).session_id))
    gateway.send_frames([b"garbage"])
    logged = broker.event("incidents", where=partial(_counted, "front_malformed"))
    assert "cancelled" not in logged["counts"]
    assert not [line for line in broker.events if _counted("cancelled", {"counts": {}, **line})]


def test_incidents_of_the_same_reason_are_logged_once_a_minute(
    broker: LoggedProcess, gateway: Dealer
) -> None:
    gateway.send_frames([b"garbage"])
    broker.event("incidents", where=partial(_counted, "front_malformed"))
    gateway.send_frames([b"garbage"])
    gateway.send(Hello(gateway_id="another"))
    broker.event("incidents", where=partial(_counted, "identity_mismatch"))
    logged = [line["counts"] for line in broker.events if line["event"] == "incidents"]
    # Another reason takes along the ones that were not logged.
    assert logged == [{"front_malformed": 1}, {"front_malformed": 1, "identity_mismatch": 1}]


def test_invalid_frames_of_hostile_peers_affect_no_other_peer(
    endpoints: Endpoints, broker: LoggedProcess, gateway: Dealer, worker: Dealer
) -> None:
    rng = random.Random(1)
    valid = codec.encode(job(0))
    garbage = [
        [b""],
        [b"", b"", b""],
        [b"J\x01"],
        [b"J\x02", *valid[1:]],
        [b"J\x01", b"\xc1", b""],
        [b"J\x01", b"\xdd\xff\xff\xff\xff", b"\0\0"],
        [b"J\x01", b"\x91" * 100_000, b""],
        [*valid, b"more"],
        [*valid[:2], b"\0"],
        [valid[0], b"\0" * (2 << 20), b""],
        [b"x"] * 2_000,
        *([rng.randbytes(rng.randint(0, 40)) for _ in range(rng.randint(1, 4))] for _ in range(99)),
    ]
    for endpoint in (endpoints.frontend, endpoints.backend):
        with Dealer(endpoint, "hostile-1") as hostile:
            for frames in garbage:
                hostile.send_frames(frames)
            # A plain close would drop frames that are not sent yet.
            hostile.socket.close(linger=5_000)
    for endpoint in (endpoints.frontend, endpoints.backend, endpoints.events):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(endpoint.removeprefix("ipc://"))
            # The broker may disconnect it before the end.
            with suppress(BrokenPipeError, ConnectionResetError):
                stranger.sendall(rng.randbytes(100_000))
    for reason in ("front_malformed", "back_malformed"):
        broker.event("incidents", where=partial(_counted, reason))
    check_round_trip(gateway, worker, 0)


def test_frame_over_the_limit_costs_the_hostile_peer_its_connection(
    endpoints: Endpoints, gateway: Dealer, worker: Dealer
) -> None:
    with Dealer(endpoints.frontend, "hostile-1") as hostile:
        monitor = hostile.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        hostile.send_frames([b"J\x01", b"\0" * (9 << 20)])
        check_round_trip(gateway, worker, 0)
        assert monitor.poll(20_000), "the broker has not disconnected it"
        hostile.socket.disable_monitor()
        monitor.close()


def test_jobs_of_a_disconnected_worker_go_to_another(endpoints: Endpoints) -> None:
    with (
        running_broker(endpoints, **NO_REDIS),
        Dealer(endpoints.frontend, GATEWAY) as gateway,
        Dealer(endpoints.backend, "worker-2") as other,
    ):
        with Dealer(endpoints.backend, "worker-1") as worker:
            worker.ready()
            worker.receive(Welcome)
            gateway.send(job(0))
            worker.receive(WorkerJob)
        gateway.send(job(1))
        other.ready()
        assigned: dict[int, WorkerJob] = {}
        while len(assigned) < 2:
            other.beat()
            gateway.send(Hello(gateway_id=GATEWAY))
            while other.socket.poll(200):
                message = codec.decode(other.frames())
                if isinstance(message, WorkerJob):
                    assigned[message.job_id] = message
        for job_id in (1, 2):
            other.answer(assigned[job_id], "here")
        assert [gateway.receive(Result).text for _ in range(2)] == ["here", "here"]


def test_a_restarted_broker_has_a_new_epoch_and_peers_reconnect(endpoints: Endpoints) -> None:
    with Dealer(endpoints.frontend, GATEWAY) as gateway:
        with running_broker(endpoints, **NO_REDIS) as broker:
            gateway.send(Hello(gateway_id=GATEWAY))
            first = gateway.receive(Welcome)
            broker.kill()
        with (
            running_broker(endpoints, **NO_REDIS),
            Dealer(endpoints.backend, "worker-1") as worker,
        ):
            worker.ready()
            gateway.send(Hello(gateway_id=GATEWAY))
            assert gateway.receive(Welcome) != first
            check_round_trip(gateway, worker, 0)


def test_a_hello_that_arrives_while_the_broker_is_stopped_has_no_time(
    endpoints: Endpoints,
) -> None:
    """The link is not to blame."""
    with (
        running_broker(endpoints, **NO_REDIS) as broker,
        Dealer(endpoints.frontend, GATEWAY) as gateway,
    ):
        gateway.send(Hello(gateway_id=GATEWAY, number=1))
        first = gateway.receive(Welcome)
        assert first.hello == 1 and first.received_ms <= 1000 * time.monotonic()
        broker.send_signal(signal.SIGSTOP)
        # It takes effect once the process is scheduled.
        wait_until(lambda: psutil.Process(broker.pid).status() == psutil.STATUS_STOPPED, "stop", 30)
        gateway.send(Hello(gateway_id=GATEWAY, number=2))
        time.sleep(1.0)
        broker.send_signal(signal.SIGCONT)
        answer = gateway.receive(Welcome)
        assert (answer.hello, answer.received_ms) == (2, 0)


def test_an_endpoint_in_use_is_reported_in_one_line(endpoints: Endpoints) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        environment = {**endpoints.environment, "BROKER_BACKEND": address}
        with LoggedProcess("broker", **environment, **NO_REDIS) as process:
            assert process.wait() == exit_codes.UNAVAILABLE
    (line,) = [line for line in process.lines if line.startswith("error: ")]
    assert line.startswith(f"error: BROKER_BACKEND: cannot bind {address}: Address already in use")
    assert "set another BROKER_BACKEND" in line
    assert not any("Traceback" in line for line in process.lines)


def test_endpoints_that_are_not_set_belong_to_the_data_directory(tmp_path: Path) -> None:
    with LoggedProcess("broker", DATA_DIR=str(tmp_path)) as first:
        first.event("broker_ready")
        run = tmp_path / "run"
        assert {path.name for path in run.iterdir()} == {
            *("frontend.sock", "backend.sock", "events.sock")
        }
        assert run.stat().st_mode & 0o777 == 0o700
        # libzmq would replace the socket files, and the first broker would get no more peers.
        with LoggedProcess("broker", DATA_DIR=str(tmp_path)) as second:
            assert second.wait() == exit_codes.UNAVAILABLE
        (line,) = (line for line in second.lines if line.startswith("error: "))
        assert "stop the other broker, or set another DATA_DIR" in line
        with Dealer(Endpoints.local(tmp_path).backend, "worker-1") as worker:
            worker.ready()
            worker.receive(Welcome)
    first.kill()
    with LoggedProcess("broker", DATA_DIR=str(tmp_path)) as after_a_crash:
        after_a_crash.event("broker_ready")


def test_an_invalid_endpoint_is_a_configuration_error(endpoints: Endpoints) -> None:
    environment = {**endpoints.environment, "BROKER_EVENTS": "tcp://127.0.0.1:port"}
    with LoggedProcess("broker", **environment, **NO_REDIS) as process:
        assert process.wait() == exit_codes.CONFIG
    assert any(line.startswith("error: BROKER_EVENTS: ") for line in process.lines)


def test_an_address_of_no_interface_is_named(endpoints: Endpoints) -> None:
    wrong = {"BROKER_EVENTS": "tcp://broker.invalid:7103", "ALLOW_PUBLIC_BUS": "true"}
    with LoggedProcess("broker", **{**endpoints.environment, **NO_REDIS, **wrong}) as process:
        assert process.wait() == exit_codes.CONFIG
    said = "error: BROKER_EVENTS: cannot bind tcp://broker.invalid:7103: no such address; a broker"
    assert any(line.startswith(said) for line in process.lines)


def test_a_redis_that_never_answers_delays_nothing(endpoints: Endpoints) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        with (
            running_broker(endpoints, BROKER_LEASE_S="60", REDIS_URL=url) as broker,
            Dealer(endpoints.frontend, GATEWAY) as gateway,
            Dealer(endpoints.backend, "worker-1") as worker,
        ):
            gateway.send(Hello(gateway_id=GATEWAY))
            worker.ready()
            assert "Timeout" in broker.event("redis_unavailable")["reason"]
            check_round_trip(gateway, worker, 0)
            assert broker.terminate() == exit_codes.OK


def test_queue_counters_are_in_redis(
    endpoints: Endpoints, embedded_services: EmbeddedServices
) -> None:
    with (
        running_broker(endpoints, REDIS_URL=embedded_services.redis_url) as broker,
        redis.from_url(embedded_services.redis_url, decode_responses=True) as client,
    ):
        broker.event("redis_ready")
        counters = client.hgetall("asr:queue")
        assert set(counters) == {
            "queued",
            "processing",
            "failed",
            "workers",
            "workers_busy",
            "est_wait_ms",
            "queued_audio_ms",
            "throughput_rtfx",
            "updated_at",
        }
        client.delete("asr:queue")
