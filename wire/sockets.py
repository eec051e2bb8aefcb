"""Every ZeroMQ socket of the system is made here; nowhere else are socket options set.

Why these options (measured on libzmq 4.3.5, see docs/architecture.md):

* ROUTER_MANDATORY with DONTWAIT sends: a send to a full or unknown peer fails loudly
  (``EAGAIN``, ``EHOSTUNREACH``) instead of vanishing.
* ROUTER_HANDOVER: a peer that lost its connection and made another is heard on the new one even
  if the old one's end has not been noticed yet, as after a pause of the broker. Without it libzmq
  ignores the new connection for as long as it lives, and neither side is told.
* XPUB_NODROP: the publisher is told that a subscriber is slow; plain PUB drops in silence.
* Heartbeats notice a stopped or cut-off peer; they do not notice a stuck inference loop, which
  is why workers send their own ``Heartbeat`` from that loop.
* Options are set before bind or connect, else they do not apply.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import zmq

from wire.keys import ClientKeys, ServerKeys

HIGH_WATER_MARK_MESSAGES = 10_000
"""Per peer and direction, above any worker's credits; at the limit a send answers ``EAGAIN``."""
MESSAGE_BYTES_MAX = 8 << 20
"""Per frame; a larger one makes libzmq drop that peer's connection. Nothing limits how many
frames a message has, except the broker's memory limit (``BROKER_MEMORY_MB_MAX``)."""
SUBSCRIPTION_BYTES_MAX = 4_096
"""Likewise of what a subscriber sends: topics, and what CURVE needs to begin. libzmq keeps each
byte of a topic in a node of its own."""
HEARTBEAT_INTERVAL_MS = 1_000
HEARTBEAT_TIMEOUT_MS = 3_000
HANDSHAKE_INTERVAL_MS = 2_000
RECONNECT_INTERVAL_MS = 50
RECONNECT_INTERVAL_MAX_MS = 1_000
LINGER_RESULTS_MS = 2_000
"""How long a closing worker or gateway lets its last messages leave."""


@dataclass(frozen=True, slots=True)
class Access:
    """Only peers with CURVE keys whose roles may come, by the ZAP handler's list for ``domain``.
    Without a handler in the context nobody gets in."""

    keys: ServerKeys
    domain: str


def new_identity(role: str) -> str:
    """A fresh identity for one life of one process, such as ``gateway-3f9a…``: random, because
    a reused identity would let a new process inherit an old one's results."""
    return f"{role}-{uuid.uuid4().hex[:16]}"


def _common(socket: zmq.Socket[bytes], *, linger_ms: int) -> None:
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK_MESSAGES)
    socket.setsockopt(zmq.LINGER, linger_ms)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_INTERVAL_MS)


def bind_router(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, access: Access | None = None
) -> zmq.Socket[bytes]:
    """A bound ROUTER. Send only with DONTWAIT; expect ``EAGAIN`` and ``EHOSTUNREACH``.

    Raises:
        zmq.ZMQError: if the endpoint is taken or malformed.
    """
    socket = context.socket(zmq.ROUTER)
    _common(socket, linger_ms=0)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    return _bound(socket, endpoint, access)


def bind_xpub(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, access: Access | None = None
) -> zmq.Socket[bytes]:
    """A bound XPUB that reports subscriptions and refuses (``EAGAIN``) rather than drops."""
    socket = context.socket(zmq.XPUB)
    _common(socket, linger_ms=0)
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES_MAX)
    return _bound(socket, endpoint, access)


def connect_dealer(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    identity: str,
    keys: ClientKeys | None = None,
) -> zmq.Socket[bytes]:
    """A DEALER known to the ROUTER by ``identity``; it reconnects by itself, with back-off."""
    socket = context.socket(zmq.DEALER)
    _common(socket, linger_ms=LINGER_RESULTS_MS)
    socket.setsockopt(zmq.ROUTING_ID, identity.encode())
    return _connected(socket, endpoint, keys)


def connect_sub(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    topics: tuple[bytes, ...],
    keys: ClientKeys | None = None,
) -> zmq.Socket[bytes]:
    """A SUB for ``topics``, subscribed before it connects."""
    socket = context.socket(zmq.SUB)
    _common(socket, linger_ms=0)
    for topic in topics:
        socket.setsockopt(zmq.SUBSCRIBE, topic)
    return _connected(socket, endpoint, keys)


def _bound(socket: zmq.Socket[bytes], endpoint: str, access: Access | None) -> zmq.Socket[bytes]:
    if access is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, access.keys.secret)
        # Enforced, because a peer that is asked about in no domain would pass unasked.
        socket.setsockopt(zmq.ZAP_DOMAIN, access.domain.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    try:
        socket.bind(endpoint)
    except zmq.ZMQError:
        socket.close(linger=0)
        raise
    return socket


def _connected(
    socket: zmq.Socket[bytes], endpoint: str, keys: ClientKeys | None
) -> zmq.Socket[bytes]:
    if keys is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_INTERVAL_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_INTERVAL_MAX_MS)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError:
        socket.close(linger=0)
        raise
    return socket
