"""The faults: injection, duration, and healing of each."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg
import redis

from tools.lab.chaos import disks, guests
from tools.lab.chaos.proxy import Proxy
from tools.lab.chaos.system import System
from tools.lab.harness.database import connect

PAUSE_S = 10.0
LATER_S_MAX = 1.0
"""For faults that clients must not notice: how much later a text may arrive than the latest one of
a run without a fault."""
FLAPS = 5
FLAP_S = 0.7
DESCRIPTORS_LEFT = 2
EXTRA_CONNECTIONS = 20
"""They take the last descriptors; the kernel spreads them over two gateways."""

Act = Callable[[System], None]


def _nothing(_system: System) -> None:
    pass


def _nothing_wrong(_system: System) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Fault:
    """``inject``, then ``check``, then ``heal``, at least ``hold_s`` after the injection."""

    name: str
    inject: Act
    heal: Act = _nothing
    hold_s: float = 0.0
    pause_s_max: float | None = None
    """The promised longest time without a text of any session."""
    full_only: bool = False
    """Not in the quick set."""
    unnoticed: bool = False
    """The promise is that texts arrive as early as without a fault."""
    check: Callable[[System], list[str]] = _nothing_wrong
    """Problems with the system's answers during the fault."""
    small_disks: bool = False
    brokers: int = 1
    """Of the system in which it is injected. Signals go to the first one."""


def _signal(kind: str, number: signal.Signals, *, every: bool = False) -> Act:
    def send(system: System) -> None:
        processes = system.living(kind)
        if not processes:
            raise RuntimeError(f"no {kind} is running")
        for process in processes if every else processes[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    return send


def _kill(kind: str, *, every: bool = False) -> Act:
    return _signal(kind, signal.SIGKILL, every=every)


def _resume(kind: str) -> Act:
    return _signal(kind, signal.SIGCONT, every=True)


def _stopped(name: str, kind: str, *, every: bool = False, **more: Any) -> Fault:
    """SIGSTOP, and SIGCONT after ``PAUSE_S``. ``more`` are further fields of the fault."""
    stop = _signal(kind, signal.SIGSTOP, every=every)
    return Fault(f"{name} stopped {PAUSE_S:g} s", stop, _resume(kind), PAUSE_S, **more)


def _order(name: str) -> Act:
    def order(system: System) -> None:
        (system.orders / name).write_text("")

    return order


def _withdraw(name: str) -> Act:
    def withdraw(system: System) -> None:
        (system.orders / name).unlink(missing_ok=True)

    return withdraw


def _on_links(action: Callable[[Proxy], None], *links: str) -> Act:
    def act(system: System) -> None:
        for link in links:
            action(system.proxies[link])

    return act


def _cut(*links: str) -> Act:
    return _on_links(lambda proxy: proxy.cut(), *links)


def _clog_back(*links: str) -> Act:
    return _on_links(lambda proxy: proxy.clog(out=False), *links)


def _clog(*links: str) -> Act:
    return _on_links(lambda proxy: proxy.clog(), *links)


def _delay(delay_s: float, *links: str) -> Act:
    return _on_links(lambda proxy: proxy.delay(delay_s), *links)


def _hang_up(*links: str) -> Act:
    return _on_links(lambda proxy: proxy.hang_up(), *links)


def _heal(*links: str) -> Act:
    return _on_links(lambda proxy: proxy.heal(), *links)


def _database(statement: str) -> Act:
    def execute(system: System) -> None:
        with connect(system.database_url) as database:
            database.execute("SET default_transaction_read_only = off")
            database.execute(statement)
            database.execute("SELECT pg_reload_conf()")

    return execute


def _end_database_sessions(system: System) -> None:
    with contextlib.suppress(psycopg.Error), connect(system.database_url) as database:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def _read_only(system: System) -> None:
    _database("ALTER SYSTEM SET default_transaction_read_only = on")(system)
    _end_database_sessions(system)


def _read_write(system: System) -> None:
    _database("ALTER SYSTEM RESET default_transaction_read_only")(system)
    _end_database_sessions(system)


def _flush_redis(system: System) -> None:
    with contextlib.closing(redis.Redis(unix_socket_path=str(system.redis_path))) as client:
        client.flushall()


def _undo(system: System) -> None:
    system.undo.close()


def _lock_tables(system: System) -> None:
    """Writers wait; readers, such as the oracle, do not."""
    database = system.undo.enter_context(contextlib.closing(connect(system.database_url)))
    database.autocommit = False
    database.execute("LOCK TABLE asr_sessions, asr_segments, asr_chunks IN EXCLUSIVE MODE")


def _lose_all_workers(system: System) -> None:
    """The supervisor is stopped, so it starts no others."""
    _signal("worker_supervisor", signal.SIGSTOP)(system)
    _kill("asr_worker", every=True)(system)


def _flap(*links: str) -> Act:
    def act(system: System) -> None:
        for number in range(FLAPS):
            time.sleep(FLAP_S if number else 0.0)
            _cut(*links)(system)
            _heal(*links)(system)

    return act


def _exhaust_descriptors(system: System) -> None:
    """Lower one gateway's limit to the descriptors it has open, and take the last ones."""
    gateway = system.living("gateway")[0]
    soft, hard = gateway.rlimit(resource.RLIMIT_NOFILE)

    def restore() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            gateway.rlimit(resource.RLIMIT_NOFILE, (soft, hard))

    system.undo.callback(restore)
    gateway.rlimit(resource.RLIMIT_NOFILE, (gateway.num_fds() + DESCRIPTORS_LEFT, hard))
    for _ in range(EXTRA_CONNECTIONS):
        system.undo.enter_context(socket.create_connection(("127.0.0.1", system.http_port)))


def _gateway_ended(system: System) -> list[str]:
    """Gateways that end within half of ``PAUSE_S``."""
    before = {process.pid for process in system.living("gateway")}
    time.sleep(PAUSE_S / 2)
    gone = before - {process.pid for process in system.living("gateway")}
    return [f"gateway {pid} ended" for pid in sorted(gone)]


def _fill_data(system: System) -> None:
    disks.fill(system.data)


def _fill_logs(system: System) -> None:
    disks.fill(system.logs)


def _free_disks(system: System) -> None:
    disks.free(system.data)
    disks.free(system.logs)


REFERENCE = Fault("none", _nothing)
"""The first row of each report; the others are compared with it."""
FAULTS = (
    Fault("worker kill", _kill("asr_worker"), pause_s_max=6.0),
    _stopped("worker", "asr_worker", pause_s_max=6.0),
    Fault("worker SIGTERM", _signal("asr_worker", signal.SIGTERM), pause_s_max=6.0, full_only=True),
    Fault("worker hangs", _order("hang"), _withdraw("hang")),
    Fault("worker 10 times slower", _order("slow"), _withdraw("slow"), PAUSE_S, full_only=True),
    Fault("all workers killed", _kill("asr_worker", every=True)),
    Fault(
        "no workers for 10 s",
        _lose_all_workers,
        _resume("worker_supervisor"),
        PAUSE_S,
        full_only=True,
        check=guests.not_refused,
    ),
    Fault(
        "worker supervisor killed",
        _kill("worker_supervisor"),
        System.restart_workers,
        full_only=True,
    ),
    Fault("broker kill", _kill("broker"), pause_s_max=5.0),
    Fault("broker SIGTERM", _signal("broker", signal.SIGTERM), pause_s_max=5.0, full_only=True),
    _stopped("broker", "broker", pause_s_max=PAUSE_S + 5.0, check=guests.not_refused),
    Fault("one of two brokers killed", _kill("broker"), pause_s_max=5.0, brokers=2),
    Fault(
        "one of two brokers SIGTERM",
        _signal("broker", signal.SIGTERM),
        pause_s_max=5.0,
        full_only=True,
        brokers=2,
    ),
    _stopped("one of two brokers", "broker", pause_s_max=5.0, brokers=2),
    Fault(
        "both brokers killed",
        _kill("broker", every=True),
        pause_s_max=5.0,
        full_only=True,
        brokers=2,
    ),
    Fault("gateway kill", _kill("gateway")),
    Fault("gateway SIGTERM", _signal("gateway", signal.SIGTERM)),
    _stopped("gateway", "gateway"),
    Fault("persistence kill", _kill("persistence"), unnoticed=True),
    _stopped("persistence", "persistence", full_only=True, unnoticed=True),
    Fault("PostgreSQL kill", _kill("postgres"), unnoticed=True),
    # Every one: the processes that serve its connections would continue without it.
    _stopped("PostgreSQL", "postgres", every=True, full_only=True, unnoticed=True),
    Fault("PostgreSQL read-only 5 s", _read_only, _read_write, 5.0, full_only=True, unnoticed=True),
    Fault(
        "PostgreSQL tables locked 10 s",
        _lock_tables,
        _undo,
        PAUSE_S,
        full_only=True,
        unnoticed=True,
    ),
    Fault(
        "PostgreSQL disk full 5 s",
        _fill_data,
        _free_disks,
        5.0,
        full_only=True,
        unnoticed=True,
        small_disks=True,
    ),
    Fault("Redis kill", _kill("valkey"), unnoticed=True),
    Fault("Redis FLUSHALL", _flush_redis, unnoticed=True, full_only=True),
    _stopped("Redis", "valkey", full_only=True, unnoticed=True),
    *(
        Fault(
            f"link {link} cut 3 s", _cut(link), _heal(link), 3.0, full_only=link != "client-gateway"
        )
        for link in (
            "gateway-broker",
            "worker-broker",
            "events",
            "persistence-broker",
            "persistence-postgres",
            "gateway-redis",
            "client-gateway",
        )
    ),
    *(
        Fault(f"link {link} one way 5 s", _clog_back(link), _heal(link), 5.0, full_only=True)
        for link in ("gateway-broker", "worker-broker", "events", "persistence-broker")
    ),
    *(
        Fault(f"link {link} clogged 5 s", _clog(link), _heal(link), 5.0, full_only=True)
        for link in ("gateway-broker", "worker-broker", "persistence-postgres", "gateway-redis")
    ),
    Fault(
        "every bus link delayed 0.3 s",
        _delay(0.3, "gateway-broker", "worker-broker", "events", "persistence-broker"),
        _heal("gateway-broker", "worker-broker", "events", "persistence-broker"),
        PAUSE_S,
        full_only=True,
    ),
    Fault(
        "link persistence-postgres delayed 0.5 s",
        _delay(0.5, "persistence-postgres"),
        _heal("persistence-postgres"),
        PAUSE_S,
        full_only=True,
        unnoticed=True,
    ),
    Fault("every client disconnected", _hang_up("client-gateway"), full_only=True),
    *(
        Fault(f"link {link} flaps", _flap(link), full_only=True)
        for link in ("client-gateway", "gateway-broker", "worker-broker", "persistence-broker")
    ),
    Fault(
        "a client that reads nothing",
        _nothing,
        full_only=True,
        unnoticed=True,
        check=guests.deaf_client_kept,
    ),
    Fault(
        "gateway out of descriptors 5 s",
        _exhaust_descriptors,
        _undo,
        full_only=True,
        check=_gateway_ended,
    ),
    Fault(
        "log disk full 5 s",
        _fill_logs,
        _free_disks,
        5.0,
        full_only=True,
        unnoticed=True,
        small_disks=True,
    ),
)
BY_NAME = {fault.name: fault for fault in (REFERENCE, *FAULTS)}
