"""The endpoints of all brokers: those of a list, and each address of a name (DNS) in it.

Each address counts as a broker of its own. Names are resolved again on a thread, because a resolver
may take long. Without an answer the last one is kept.
"""

from __future__ import annotations

import re
import socket
import threading
from typing import Final

import structlog

from runtime import endpoints

RESOLVE_S: Final = 5.0
"""Interval of resolutions …"""
RESOLVE_AGAIN_S: Final = 1.0
"""… and while a broker is away, which may have another address now."""

_NAME = re.compile(r"tcp://([^\[\]:/]*[A-Za-z][^\[\]:/]*):(\d+)")


class BrokerAddresses:
    """Read ``current`` at any time. ``close`` need not be called: the thread is a daemon."""

    def __init__(self, listed: str) -> None:
        """``listed``: a setting, such as ``BROKER_BACKEND``."""
        self._listed = endpoints.split(listed)
        self._resolved: dict[str, tuple[str, ...]] = {}
        self.hurry = True
        """A broker is away, or none is known."""
        self._closed = threading.Event()
        self._log = structlog.get_logger()
        self.current = self._places()
        """Endpoints by place: the position in the list, and for a name the address. Endpoints of
        one broker in two settings have the same place, if the lists have the same order."""
        if any(_NAME.fullmatch(endpoint) for endpoint in self._listed):
            threading.Thread(target=self._run, name="broker-addresses", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            for endpoint in self._listed:
                if (found := _NAME.fullmatch(endpoint)) and (hosts := _resolve(found[1])):
                    self._resolved[endpoint] = hosts
            before, self.current = self.current, self._places()
            if before != self.current:
                self._log.info("broker_addresses", endpoints=sorted(self.current.values()))
            self._closed.wait(RESOLVE_AGAIN_S if self.hurry else RESOLVE_S)

    def _places(self) -> dict[str, str]:
        places = {}
        for index, endpoint in enumerate(self._listed):
            if found := _NAME.fullmatch(endpoint):
                for host in self._resolved.get(endpoint, ()):
                    places[f"{index} {host}"] = f"tcp://{host}:{found[2]}"
            else:
                places[str(index)] = endpoint
        # Two names of one broker: a second connection with the same identity would end the first.
        once = {endpoint: place for place, endpoint in reversed(places.items())}
        return {place: endpoint for place, endpoint in places.items() if once[endpoint] == place}


def _resolve(name: str) -> tuple[str, ...]:
    """The addresses of ``name``: IPv4 if there are any, since a broker may have both."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    hosts = {family: set[str]() for family in (socket.AF_INET, socket.AF_INET6)}
    for family, _, _, _, address in found:
        if family in hosts:
            hosts[family].add(str(address[0]))
    return tuple(sorted(hosts[socket.AF_INET])) or tuple(
        f"[{host}]" for host in sorted(hosts[socket.AF_INET6])
    )
