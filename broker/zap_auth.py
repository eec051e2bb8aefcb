"""Authenticates peers by their CURVE keys with ZAP (https://rfc.zeromq.org/spec/27/).

Without a ZAP handler CURVE only encrypts: any client with the broker's public key may connect. The
handler allows each socket a list of roles.
"""

from __future__ import annotations

from typing import Final

import structlog
from zmq.auth.thread import ThreadAuthenticator

from broker.metrics import KEYS_REFUSED
from wire.keys import Keys, Role
from wire.sockets import Context

ALLOWED: Final[dict[str, frozenset[Role]]] = {
    "front": frozenset({"gateway", "persistence"}),
    "back": frozenset({"worker"}),
    "events": frozenset({"persistence"}),
}
"""Roles that may connect to a socket, by ZAP domain, which is the name of the socket."""
REFUSED_KEYS_LOGGED_MAX = 100
"""Per socket; further keys are only counted."""


class ZapAuth:
    """Allows the keys that it was given last, on a thread of its own."""

    def __init__(self, context: Context, keys: Keys) -> None:
        """Start the thread. Call before binding sockets."""
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        self._domains = {domain: _Domain(domain) for domain in ALLOWED}
        self.allow(keys)
        for name, domain in self._domains.items():
            self._authenticator.configure_curve_callback(name, domain)

    def allow(self, keys: Keys) -> None:
        """Allow these keys, and no others, to new connections."""
        for name, domain in self._domains.items():
            roles = sorted(ALLOWED[name])
            domain.allowed = frozenset(key for role in roles for key in keys.allowed[role])

    def stop(self) -> None:
        """Stop the thread. Call before terminating the context."""
        self._authenticator.stop()


class _Domain:
    """A ``CurveCallback`` of pyzmq for one socket."""

    def __init__(self, domain: str) -> None:
        self.allowed: frozenset[bytes] = frozenset()
        """Replaced as a whole, for it is read on another thread."""
        self._domain = domain
        self._logged: set[bytes] = set()
        self._log = structlog.get_logger()

    def callback(self, _domain: str, key: bytes) -> bool:
        if key in self.allowed:
            return True
        KEYS_REFUSED.labels(self._domain).inc()
        # Each key is logged once: a peer with a wrong key reconnects every second.
        if key not in self._logged and len(self._logged) < REFUSED_KEYS_LOGGED_MAX:
            self._logged.add(key)
            self._log.warning("bus_key_refused", socket=self._domain, public_key=key.decode())
        return False
