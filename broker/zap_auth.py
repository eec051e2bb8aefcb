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


class _Keys:
    """A ``CurveCallback`` of pyzmq for one domain."""

    def __init__(self, domain: str, keys: Keys) -> None:
        self._domain = domain
        self._logged: set[bytes] = set()
        self._allowed = {keys.public[role] for role in ALLOWED[domain]}
        self._log = structlog.get_logger()

    def callback(self, _domain: str, key: bytes) -> bool:
        if key in self._allowed:
            return True
        KEYS_REFUSED.labels(self._domain).inc()
        # Each key is logged once: a peer with a wrong key reconnects every second.
        if key not in self._logged and len(self._logged) < REFUSED_KEYS_LOGGED_MAX:
            self._logged.add(key)
            self._log.warning("bus_key_refused", socket=self._domain, public_key=key.decode())
        return False


def start(context: Context, keys: Keys) -> ThreadAuthenticator:
    """Start and return a thread that answers the requests of libzmq. Call before binding sockets;
    call ``stop`` of the thread before terminating the context."""
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    for domain in ALLOWED:
        authenticator.configure_curve_callback(domain, _Keys(domain, keys))
    return authenticator
