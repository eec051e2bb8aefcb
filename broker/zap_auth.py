"""Who may connect: CURVE's keys, checked by ZAP (RFC 27) before a peer's first message.

Without a ZAP handler CURVE encrypts but lets in whoever has the broker's public key; so the broker
has one, with a list of roles for each of its sockets.
"""

from __future__ import annotations

from typing import Final

import structlog
import zmq
from zmq.auth.thread import ThreadAuthenticator

from broker.metrics import KEYS_REFUSED
from wire.keys import Role, ServerKeys

ALLOWED: Final[dict[str, frozenset[Role]]] = {
    "front": frozenset({"gateway", "persistence"}),
    "back": frozenset({"worker"}),
    "events": frozenset({"persistence"}),
}
"""ZAP domain, the name of a socket: roles that may connect to it."""
KEYS_TOLD_MAX = 100
"""Refused keys logged for each socket; those that come then are only counted."""


class _Keys:
    """pyzmq's ``CurveCallback``, for one domain."""

    def __init__(self, domain: str, keys: ServerKeys) -> None:
        self._domain = domain
        self._told: set[bytes] = set()
        self._allowed = {keys.allowed[role] for role in ALLOWED[domain]}
        self._log = structlog.get_logger()

    def callback(self, _domain: str, key: bytes) -> bool:
        if key in self._allowed:
            return True
        KEYS_REFUSED.labels(self._domain).inc()
        # Once for each key: a peer with the wrong one knocks again every second.
        if key not in self._told and len(self._told) < KEYS_TOLD_MAX:
            self._told.add(key)
            self._log.warning("bus_key_refused", socket=self._domain, public_key=key.decode())
        return False


class ZapAuthenticator:
    """A thread that answers libzmq's questions; to be started before the sockets are bound."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: ServerKeys) -> None:
        self._authenticator = ThreadAuthenticator(context)
        self._authenticator.start()
        for domain in ALLOWED:
            self._authenticator.configure_curve_callback(domain, _Keys(domain, keys))

    def close(self) -> None:
        """Before the context ends."""
        self._authenticator.stop()
