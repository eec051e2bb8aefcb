"""The endpoints of all brokers: those of a list, and each address of a name (DNS) in it.

Names are resolved again on a thread; without an answer the last one is kept.
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
UNRESOLVED_S: Final = 5.0
"""A name without an address for this long after the start is logged."""

_NAME = re.compile(r"tcp://([^\[\]:/]*[A-Za-z][^\[\]:/]*):(\d+)")


class BrokerAddresses:
    """Read ``current`` at any time. ``close`` need not be called: the thread is a daemon."""

    def __init__(self, listed: str) -> None:
        """``listed``: a setting, such as ``BROKER_BACKEND``."""
        self._listed = {each: _NAME.fullmatch(each) for each in endpoints.split(listed)}
        """Endpoints, and of those with a name its parts."""
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._reasons: dict[str, str] = {}
        """Why a name has no address."""
        self.hurry = True
        """A broker is away, or none is known."""
        self._closed = threading.Event()
        self._log = structlog.get_logger()
        self.current = self._places()
        """Endpoints by place: the position in the list, and for a name the address. Endpoints of
        one broker in two settings have the same place, if the lists have the same order."""
        self._names = {each: found[1] for each, found in self._listed.items() if found}
        if self._names:
            # Two threads, because a resolver may not answer for longer than UNRESOLVED_S.
            for run in (self._run, self._log_unresolved):
                threading.Thread(target=run, name="broker-addresses", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _log_unresolved(self) -> None:
        if self._closed.wait(UNRESOLVED_S):
            return
        for endpoint in self._names.keys() - self._resolved.keys():
            reason = self._reasons.get(endpoint, "the resolver does not answer")
            self._log.warning(
                "broker_not_reached", endpoint=endpoint, waited_s=UNRESOLVED_S, reason=reason
            )

    def _run(self) -> None:
        while not self._closed.is_set():
            for endpoint, name in self._names.items():
                try:
                    self._resolved[endpoint] = _resolve(name)
                except OSError as error:
                    self._reasons[endpoint] = error.strerror or "the name has no address"
            before, self.current = self.current, self._places()
            if before != self.current:
                self._log.info("broker_addresses", endpoints=sorted(self.current.values()))
            self._closed.wait(RESOLVE_AGAIN_S if self.hurry else RESOLVE_S)

    def _places(self) -> dict[str, str]:
        places = {}
        for index, (endpoint, name) in enumerate(self._listed.items()):
            if name:
                for host in self._resolved.get(endpoint, ()):
                    places[f"{index} {host}"] = f"tcp://{host}:{name[2]}"
            else:
                places[str(index)] = endpoint
        # Two names of one broker: a second connection with the same identity would end the first.
        once = {endpoint: place for place, endpoint in reversed(places.items())}
        return {place: endpoint for place, endpoint in places.items() if once[endpoint] == place}


def _resolve(name: str) -> tuple[str, ...]:
    """The addresses of ``name``: IPv4 if there are any, since a broker may have both.

    Raises:
        OSError: there is no answer.
    """
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    ipv4 = {str(address[0]) for family, *_, address in found if family == socket.AF_INET}
    ipv6 = {f"[{address[0]}]" for family, *_, address in found if family == socket.AF_INET6}
    return tuple(sorted(ipv4 or ipv6))
