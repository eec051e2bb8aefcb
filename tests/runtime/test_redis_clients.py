"""Every form of REDIS_URL with real servers, by both kinds of client."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
import structlog

from gateway.storage.redis_metadata import RedisMetadata
from runtime import redis_clients
from runtime.process_report import PROCESSES_KEY
from tests import certificates
from tools.lab.harness.ports import free_port, free_range
from tools.lab.harness.servers import RedisServer
from tools.lab.harness.stack import wait_until

HOST = "127.0.0.1"
PASSWORD = "s3cret"
SLOTS = 16_384
WAIT_S = 60.0
SERVICE = "asr"


# redis-py leaves connections of its asyncio clients of Sentinel and clusters to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collects them here, so that no other test is blamed."""
    yield
    gc.collect()


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def use(url: str) -> None:
    """Every command of our processes, through both kinds of client."""
    wait_until(lambda: _answers(lambda: _use_as_a_thread(url)), "a thread's calls", WAIT_S)
    asyncio.run(_use_as_a_gateway(url))


def _use_as_a_thread(url: str) -> None:
    with contextlib.closing(redis_clients.blocking(url)) as client:
        client.hset("asr:queue", mapping={"queued": 1})
        with client.pipeline(transaction=False) as pipe:
            for name in ("a", "b", "c"):
                pipe.set(f"asr:process:{name}", "{}", ex=10)
                pipe.sadd(PROCESSES_KEY, name)
            pipe.execute()


async def _use_as_a_gateway(url: str) -> None:
    metadata = RedisMetadata(url, "gateway-1")
    metadata.open(lambda: 3)
    try:
        # A busy host may need longer than a call may take.
        async with asyncio.timeout(WAIT_S):
            while not (await metadata.count_connections(3) == 3 and metadata.ready):
                await asyncio.sleep(0.05)
            while not await metadata.session_exists("s1"):
                metadata.update_session("s1", status="active", tenant="")
                await asyncio.sleep(0.05)
            while await metadata.all_figures() != ["{}"] * 4:
                await metadata.publish_figures("{}")
        metadata.forget_session("s1")
    finally:
        await metadata.close()


def test_ipv6_and_a_password(started: ExitStack, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", "::1", free_port(), password=PASSWORD)
    started.enter_context(server)
    use(server.url)
    with pytest.raises(redis.AuthenticationError):
        redis_clients.blocking(f"redis://[::1]:{server.port}").ping()


def test_tls(started: ExitStack, tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server, which has TLS, is not installed")
    made = certificates.make(tmp_path)
    port = free_port()
    files = ("--tls-cert-file", str(made.certificate), "--tls-key-file", str(made.key))
    options = ("--tls-port", str(port), *files, "--tls-auth-clients", "no")
    plain = RedisServer(tmp_path / "redis", HOST, free_port(), *options, program=program)
    started.enter_context(plain)
    use(f"rediss://{HOST}:{port}/0?ssl_ca_certs={made.certificate}")
    with pytest.raises(redis.ConnectionError, match="certificate"):
        redis_clients.blocking(f"rediss://{HOST}:{port}").ping()


def test_sentinel_names_the_server_also_after_a_failover(
    started: ExitStack, tmp_path: Path
) -> None:
    first = RedisServer(tmp_path / "1", HOST, free_port(), password=PASSWORD)
    started.enter_context(first)
    follow = ("--replicaof", f"{HOST} {first.port}", "--masterauth", PASSWORD)
    second = RedisServer(tmp_path / "2", HOST, free_port(), *follow, password=PASSWORD)
    started.enter_context(second)
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"sentinel monitor {SERVICE} {HOST} {first.port} 1\n"
        f"sentinel auth-pass {SERVICE} {PASSWORD}\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\n"
        f"sentinel failover-timeout {SERVICE} 3000\n"
    )
    sentinel = RedisServer(tmp_path / "3", HOST, free_port(), str(config), "--sentinel")
    started.enter_context(sentinel)
    # The first of the list is not there.
    url = f"redis+sentinel://:{PASSWORD}@{HOST}:{free_port()},{HOST}:{sentinel.port}/{SERVICE}"
    use(url)
    with contextlib.closing(redis_clients.blocking(url)) as client:
        wait_until(lambda: _replicas(sentinel) == 1, "the sentinel knows the replica", WAIT_S)
        first.stop()
        wait_until(lambda: _answers(lambda: client.set("k", 1)), "the replica writes", WAIT_S)
    use(url)


def _replicas(sentinel: RedisServer) -> int:
    with redis.Redis.from_url(sentinel.url) as client:
        return len(client.sentinel_slaves(SERVICE))


def _answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except redis_clients.ERRORS:
        return False
    return True


def test_a_cluster_of_which_the_first_named_node_is_gone(
    started: ExitStack, tmp_path: Path
) -> None:
    ports = [free_range(1, highest=20_000) for _ in range(3)]  # The bus is 10,000 above.
    nodes = [
        RedisServer(tmp_path / str(port), HOST, port, "--cluster-enabled", "yes", password=PASSWORD)
        for port in ports
    ]
    for node in nodes:
        started.enter_context(node)
    for number, node in enumerate(nodes):
        with redis.Redis.from_url(node.url) as client:
            first, end = (SLOTS * n // len(nodes) for n in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            client.execute_command("CLUSTER", "MEET", HOST, ports[0])
    for node in nodes:
        wait_until(functools.partial(_is_whole, node, len(nodes)), "the cluster is up", WAIT_S)
    url = f"redis+cluster://:{PASSWORD}@{HOST}:{free_port()},{HOST}:{ports[1]}"
    use(url)


def _is_whole(node: RedisServer, nodes: int) -> bool:
    with redis.Redis.from_url(node.url) as client:
        info = client.execute_command("CLUSTER", "INFO")
        return b"cluster_state:ok" in info and b"cluster_known_nodes:%d" % nodes in info


@pytest.mark.parametrize("form", ["redis", "redis+cluster", "redis+sentinel"])
def test_a_server_that_is_not_there_is_an_error_that_callers_expect(form: str) -> None:
    service = "/asr" if form == "redis+sentinel" else ""
    url = f"{form}://{HOST}:{free_port()}{service}"
    began_s = time.monotonic()
    with pytest.raises(redis_clients.ERRORS), contextlib.ExitStack() as stack:
        client = redis_clients.blocking(url)
        stack.callback(client.close)
        client.ping()
    assert time.monotonic() - began_s < WAIT_S
    asyncio.run(_no_answer(url))


def test_a_reason_that_changes_while_redis_is_unavailable_is_logged_once_each() -> None:
    pipelined = redis.ResponseError(f"Command # 1 (SET k v){redis_clients.IN_PIPELINE}no room")
    with structlog.testing.capture_logs() as logs:
        availability = redis_clients.Availability()
        for _ in range(2):
            for error in (redis.ConnectionError("refused"), TimeoutError(), pipelined):
                availability.note(error)
                assert not availability.ready
        availability.note(None)
        availability.note(None)
        assert availability.ready
        availability.note(TimeoutError())
    reasons = ["refused", "no answer in time", "no room", None, "no answer in time"]
    assert [line.get("reason") for line in logs] == reasons


async def _no_answer(url: str) -> None:
    metadata = RedisMetadata(url, "gateway-1")
    assert await metadata.session_exists("s1") is None
    await metadata.close()
