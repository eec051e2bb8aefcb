"""The faults: how each is made, for how long, and how it is mended."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import psycopg
import redis

from tools.lab.chaos import disks, guests
from tools.lab.chaos.observe import connect
from tools.lab.chaos.system import System

PAUSE_S = 10.0
LATER_S_MAX = 1.0
"""Where clients are to notice nothing: a text may come so much later than the latest of a run
without any fault."""
FLAPS = 5
FLAP_S = 0.7
DESCRIPTORS_LEFT = 2
STRANGERS = 20
"""Connections that take the last descriptors; the kernel spreads them over two gateways."""

Act = Callable[[System], None]


def _nothing(_system: System) -> None:
    pass


def _nothing_wrong(_system: System) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class Fault:
    """``inject``, then ``check`` within ``hold_s`` or longer, then ``heal``."""

    name: str
    inject: Act
    heal: Act = _nothing
    hold_s: float = 0.0
    pause_s_max: float | None = None
    """The longest silence of texts, over all sessions, that is promised."""
    full_only: bool = False
    """Not in the quick set."""
    unnoticed: bool = False
    """It is promised that no text comes later than without a fault."""
    check: Callable[[System], list[str]] = _nothing_wrong
    """What is wrong with the answers that the system gives meanwhile."""
    small_disks: bool = False


def _signal(kind: str, number: signal.Signals, *, every: bool = False) -> Callable[[System], None]:
    def send(system: System) -> None:
        processes = system.processes(kind)
        if not processes:
            raise RuntimeError(f"there is no {kind} to hurt")
        for process in processes if every else processes[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    return send


def _kill(kind: str, *, every: bool = False) -> Callable[[System], None]:
    return _signal(kind, signal.SIGKILL, every=every)


def _resume(kind: str) -> Callable[[System], None]:
    return _signal(kind, signal.SIGCONT, every=True)


def _signal_database(number: signal.Signals) -> Act:
    """To the server and to what serves its connections: without the latter they would go on."""

    def send(system: System) -> None:
        for server in system.processes("postgres"):
            for process in (server, *server.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    return send


def _restart_workers(system: System) -> None:
    system.restart("asr_worker")


def _order(name: str) -> Callable[[System], None]:
    def order(system: System) -> None:
        (system.orders / name).write_text("")

    return order


def _withdraw(name: str) -> Callable[[System], None]:
    def withdraw(system: System) -> None:
        (system.orders / name).unlink(missing_ok=True)

    return withdraw


def _all_proxies(action: Callable[[System, str], None], *links: str) -> Callable[[System], None]:
    def act(system: System) -> None:
        for link in links:
            action(system, link)

    return act


def _cut(*links: str) -> Callable[[System], None]:
    return _all_proxies(lambda system, link: system.proxies[link].cut(), *links)


def _deafen(*links: str) -> Callable[[System], None]:
    return _all_proxies(lambda system, link: system.proxies[link].clog(out=False), *links)


def _clog(*links: str) -> Callable[[System], None]:
    return _all_proxies(lambda system, link: system.proxies[link].clog(), *links)


def _delay(delay_s: float, *links: str) -> Callable[[System], None]:
    return _all_proxies(lambda system, link: system.proxies[link].delay(delay_s), *links)


def _hang_up(*links: str) -> Callable[[System], None]:
    return _all_proxies(lambda system, link: system.proxies[link].hang_up(), *links)


def _mend(*links: str) -> Callable[[System], None]:
    return _all_proxies(lambda system, link: system.proxies[link].heal(), *links)


def _database(statement: str) -> Callable[[System], None]:
    def execute(system: System) -> None:
        with connect(system) as database:
            database.execute("SET default_transaction_read_only = off")
            database.execute(statement)
            database.execute("SELECT pg_reload_conf()")

    return execute


def _end_database_sessions(system: System) -> None:
    with contextlib.suppress(psycopg.Error), connect(system) as database:
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
    """Whoever wants to write waits; whoever reads, as the oracle does, need not."""
    database = system.undo.enter_context(contextlib.closing(connect(system)))
    database.autocommit = False
    database.execute("LOCK TABLE asr_sessions, asr_segments, asr_chunks IN EXCLUSIVE MODE")


def _lose_all_workers(system: System) -> None:
    """Their supervisor, stopped, starts no others."""
    _signal("worker_supervisor", signal.SIGSTOP)(system)
    _kill("worker", every=True)(system)


def _flap(*links: str) -> Act:
    def act(system: System) -> None:
        for number in range(FLAPS):
            time.sleep(FLAP_S if number else 0.0)
            _cut(*links)(system)
            _mend(*links)(system)

    return act


def _exhaust_descriptors(system: System) -> None:
    """One gateway can open hardly a file more, and strangers take the last."""
    gateway = system.processes("gateway")[0]
    soft, hard = gateway.rlimit(resource.RLIMIT_NOFILE)

    def restore() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            gateway.rlimit(resource.RLIMIT_NOFILE, (soft, hard))

    system.undo.callback(restore)
    gateway.rlimit(resource.RLIMIT_NOFILE, (gateway.num_fds() + DESCRIPTORS_LEFT, hard))
    for _ in range(STRANGERS):
        system.undo.enter_context(socket.create_connection(("127.0.0.1", system.http_port)))


def _gateway_ended(system: System) -> list[str]:
    """For a fault that a gateway has to bear for a while."""
    before = {process.pid for process in system.processes("gateway")}
    time.sleep(PAUSE_S / 2)
    gone = before - {process.pid for process in system.processes("gateway")}
    return [f"gateway {pid} ended" for pid in sorted(gone)]


def _fill_data(system: System) -> None:
    disks.fill(system.data)


def _fill_logs(system: System) -> None:
    disks.fill(system.logs)


def _free_disks(system: System) -> None:
    disks.free(system.data)
    disks.free(system.logs)


REFERENCE = Fault("none", _nothing)
"""Said first of each report: what the others are compared with."""
FAULTS = (
    Fault("worker kill", _kill("worker"), pause_s_max=6.0),
    Fault(
        "worker stopped 10 s", _signal("worker", signal.SIGSTOP), _resume("worker"), PAUSE_S, 6.0
    ),
    Fault("worker SIGTERM", _signal("worker", signal.SIGTERM), pause_s_max=6.0, full_only=True),
    Fault("worker hangs", _order("hang"), _withdraw("hang")),
    Fault("worker 10 times slower", _order("slow"), _withdraw("slow"), PAUSE_S, full_only=True),
    Fault("all workers killed", _kill("worker", every=True)),
    Fault(
        "no workers for 10 s",
        _lose_all_workers,
        _resume("worker_supervisor"),
        PAUSE_S,
        full_only=True,
        check=guests.not_refused,
    ),
    Fault("worker supervisor killed", _kill("worker_supervisor"), _restart_workers, full_only=True),
    Fault("broker kill", _kill("broker"), pause_s_max=5.0),
    Fault("broker SIGTERM", _signal("broker", signal.SIGTERM), pause_s_max=5.0, full_only=True),
    Fault(
        "broker stopped 10 s",
        _signal("broker", signal.SIGSTOP),
        _resume("broker"),
        PAUSE_S,
        check=guests.not_refused,
    ),
    Fault("gateway kill", _kill("gateway")),
    Fault("gateway SIGTERM", _signal("gateway", signal.SIGTERM)),
    Fault("gateway stopped 10 s", _signal("gateway", signal.SIGSTOP), _resume("gateway"), PAUSE_S),
    Fault("persistence kill", _kill("persistence"), unnoticed=True),
    Fault(
        "persistence stopped 10 s",
        _signal("persistence", signal.SIGSTOP),
        _resume("persistence"),
        PAUSE_S,
        full_only=True,
        unnoticed=True,
    ),
    Fault("PostgreSQL kill", _kill("postgres"), unnoticed=True),
    Fault(
        "PostgreSQL stopped 10 s",
        _signal_database(signal.SIGSTOP),
        _signal_database(signal.SIGCONT),
        PAUSE_S,
        full_only=True,
        unnoticed=True,
    ),
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
    Fault("Redis kill", _kill("redis"), unnoticed=True),
    Fault("Redis FLUSHALL", _flush_redis, unnoticed=True, full_only=True),
    Fault(
        "Redis stopped 10 s",
        _signal("redis", signal.SIGSTOP),
        _resume("redis"),
        PAUSE_S,
        full_only=True,
        unnoticed=True,
    ),
    *(
        Fault(
            f"link {link} cut 3 s", _cut(link), _mend(link), 3.0, full_only=link != "client-gateway"
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
        Fault(f"link {link} one way 5 s", _deafen(link), _mend(link), 5.0, full_only=True)
        for link in ("gateway-broker", "worker-broker", "events", "persistence-broker")
    ),
    *(
        Fault(f"link {link} clogged 5 s", _clog(link), _mend(link), 5.0, full_only=True)
        for link in ("gateway-broker", "worker-broker", "persistence-postgres", "gateway-redis")
    ),
    Fault(
        "every bus link delayed 0.3 s",
        _delay(0.3, "gateway-broker", "worker-broker", "events", "persistence-broker"),
        _mend("gateway-broker", "worker-broker", "events", "persistence-broker"),
        PAUSE_S,
        full_only=True,
    ),
    Fault(
        "link persistence-postgres delayed 0.5 s",
        _delay(0.5, "persistence-postgres"),
        _mend("persistence-postgres"),
        PAUSE_S,
        full_only=True,
        unnoticed=True,
    ),
    Fault("every client cut off", _hang_up("client-gateway"), full_only=True),
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
