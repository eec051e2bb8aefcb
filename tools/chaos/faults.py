"""The faults: how each is made, for how long, and how it is mended."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass

import psutil
import psycopg
import redis

from tools.chaos.observe import connect
from tools.chaos.system import System

PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class Fault:
    """``inject``, wait ``hold_s``, ``heal``. ``pause_s_max``: the longest silence of texts, over
    all sessions, that is promised; None where there is no promise."""

    name: str
    inject: Callable[[System], None]
    heal: Callable[[System], None] = lambda _system: None
    hold_s: float = 0.0
    pause_s_max: float | None = None
    full_only: bool = False
    """Not in the quick set."""


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


FAULTS = (
    Fault("worker kill", _kill("worker"), pause_s_max=6.0),
    Fault(
        "worker stopped 10 s", _signal("worker", signal.SIGSTOP), _resume("worker"), PAUSE_S, 6.0
    ),
    Fault("worker SIGTERM", _signal("worker", signal.SIGTERM), pause_s_max=6.0, full_only=True),
    Fault("worker hangs", _order("hang"), _withdraw("hang")),
    Fault("worker 10 times slower", _order("slow"), _withdraw("slow"), PAUSE_S, full_only=True),
    Fault("all workers killed", _kill("worker", every=True)),
    Fault("worker supervisor killed", _kill("worker_supervisor"), _restart_workers, full_only=True),
    Fault("broker kill", _kill("broker"), pause_s_max=5.0),
    Fault("broker SIGTERM", _signal("broker", signal.SIGTERM), pause_s_max=5.0, full_only=True),
    Fault("broker stopped 10 s", _signal("broker", signal.SIGSTOP), _resume("broker"), PAUSE_S),
    Fault("gateway kill", _kill("gateway")),
    Fault("gateway SIGTERM", _signal("gateway", signal.SIGTERM)),
    Fault("gateway stopped 10 s", _signal("gateway", signal.SIGSTOP), _resume("gateway"), PAUSE_S),
    Fault("persistence kill", _kill("persistence"), pause_s_max=2.0),
    Fault(
        "persistence stopped 10 s",
        _signal("persistence", signal.SIGSTOP),
        _resume("persistence"),
        PAUSE_S,
        2.0,
        full_only=True,
    ),
    Fault("PostgreSQL kill", _kill("postgres"), pause_s_max=2.0),
    Fault(
        "PostgreSQL stopped 10 s",
        _signal("postgres", signal.SIGSTOP, every=True),
        _resume("postgres"),
        PAUSE_S,
        2.0,
        full_only=True,
    ),
    Fault("PostgreSQL read-only 5 s", _read_only, _read_write, 5.0, 2.0, full_only=True),
    Fault("Redis kill", _kill("redis"), pause_s_max=2.0),
    Fault("Redis FLUSHALL", _flush_redis, pause_s_max=2.0, full_only=True),
    Fault(
        "Redis stopped 10 s",
        _signal("redis", signal.SIGSTOP),
        _resume("redis"),
        PAUSE_S,
        2.0,
        full_only=True,
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
    Fault("every connection of a client flaps", _hang_up("client-gateway"), full_only=True),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
