"""Every ZeroMQ socket of the system is made here, and only here are socket options set.

Reasons for the options (libzmq 4.3.5, see docs/development.md):

* ROUTER_MANDATORY with DONTWAIT: a send to a full or unknown peer fails with ``EAGAIN`` or
  ``EHOSTUNREACH``. Without it the message is dropped silently.
* ROUTER_HANDOVER: when a peer reconnects, its new connection replaces the old one, even if the
  broker has not noticed the end of the old one yet. Without it libzmq ignores the new connection
  for its whole life, and neither side gets an error.
* XPUB_NODROP: a send to a slow subscriber fails with ``EAGAIN``. PUB drops the message silently.
* Heartbeats detect a stopped or disconnected peer. They do not detect a stuck inference loop, so
  workers send a ``Heartbeat`` message from that loop.
* Options are set before bind or connect; later they have no effect.
"""

from __future__ import annotations

import errno
import re
import socket as host_socket
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import zmq
from msgspec import Struct

from wire.keys import Keys

HIGH_WATER_MARK_MESSAGES = 10_000
"""Per peer and direction, more than any worker's credits. Then a send fails with ``EAGAIN``."""
MESSAGE_BYTES_MAX = 8 << 20
"""Per frame; a larger one makes libzmq drop that peer's connection. Nothing limits how many
frames a message has, except the broker's memory limit (``BROKER_MEMORY_MB_MAX``)."""
SUBSCRIPTION_BYTES_MAX = 4_096
"""The same for messages from a subscriber: topics and the CURVE handshake. It is small, because
libzmq stores each byte of a topic in a node of its own."""
HEARTBEAT_INTERVAL_MS = 1_000
HEARTBEAT_TIMEOUT_MS = 3_000
HANDSHAKE_INTERVAL_MS = 2_000
RECONNECT_INTERVAL_MS = 50
RECONNECT_INTERVAL_MAX_MS = 1_000
LINGER_RESULTS_MS = 2_000
"""Longest time that a closing gateway or worker takes to send its last messages."""
HOST_CHARS_MAX = 40
"""A longer host name is cut in an identity."""
UNBIND_S_MAX = 1.0
"""Limit on the time that libzmq takes to close a Unix socket …"""
UNBIND_POLL_S = 0.001
"""… how often that is checked …"""
UNLINK_S = 0.02
"""… and the time in which it then removes the file, if this build does."""

_NOW = int(zmq.DONTWAIT)
_NOW_AND_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_SEND = zmq.backend.Socket.send
"""The C function. For a message of four frames it takes 1.7 µs, ``zmq.Socket.send`` 3.1 µs and
``send_multipart`` 4.4 µs, for options that are not used here."""
_REFUSALS = frozenset({zmq.EAGAIN, zmq.EHOSTUNREACH})

Context: TypeAlias = zmq.Context[zmq.Socket[bytes]]
Socket: TypeAlias = zmq.Socket[bytes]


class Access(Struct, frozen=True):
    """Admits only peers whose CURVE key the context's ZAP handler accepts for ``domain``; without a
    handler, none."""

    keys: Keys
    domain: str


def new_identity(role: str) -> str:
    """Return a new identity for one life of one process, such as ``gateway-host-3f9a…``. It is
    random, because a process with a reused identity would receive its predecessor's results."""
    host = re.sub(r"[^a-z0-9-]+", "-", host_socket.gethostname().lower())[:HOST_CHARS_MAX]
    return f"{role}-{host}-{uuid.uuid4().hex[:16]}"


def _socket(context: Context, kind: int, *, linger_ms: int) -> Socket:
    socket = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK_MESSAGES)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK_MESSAGES)
    socket.setsockopt(zmq.LINGER, linger_ms)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_INTERVAL_MS)
    return socket


def bind_router(context: Context, endpoint: str, access: Access | None = None) -> Socket:
    """Return a bound ROUTER. Send only with DONTWAIT, and handle ``EAGAIN`` and ``EHOSTUNREACH``.

    Raises:
        zmq.ZMQError: if the endpoint is taken or malformed.
    """
    socket = _socket(context, zmq.ROUTER, linger_ms=0)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    return _bound(socket, endpoint, access)


def bind_xpub(context: Context, endpoint: str, access: Access | None = None) -> Socket:
    """Return a bound XPUB. It reports subscriptions; a full subscriber gives ``EAGAIN``."""
    socket = _socket(context, zmq.XPUB, linger_ms=0)
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES_MAX)
    return _bound(socket, endpoint, access)


def connect_dealer(
    context: Context, endpoint: str, identity: str, keys: Keys | None = None, *, events: int = 0
) -> Socket:
    """Return a connected DEALER with the routing id ``identity``. It reconnects with backoff. A
    monitor reports ``events`` from the first connection on."""
    socket = _socket(context, zmq.DEALER, linger_ms=LINGER_RESULTS_MS)
    socket.setsockopt(zmq.ROUTING_ID, identity.encode())
    return _connected(socket, endpoint, keys, events)


def connect_sub(
    context: Context,
    endpoint: str,
    topics: tuple[bytes, ...],
    keys: Keys | None = None,
    *,
    events: int = 0,
) -> Socket:
    """Return a connected SUB, subscribed to ``topics``; ``events`` as of ``connect_dealer``."""
    socket = _socket(context, zmq.SUB, linger_ms=0)
    for topic in topics:
        socket.setsockopt(zmq.SUBSCRIBE, topic)
    return _connected(socket, endpoint, keys, events)


def _bound(socket: Socket, endpoint: str, access: Access | None) -> Socket:
    _allow_ipv6(socket, endpoint)
    if access is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, access.keys.secret)
        # Without enforcement, libzmq admits peers of an empty domain without asking the handler.
        socket.setsockopt(zmq.ZAP_DOMAIN, access.domain.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    try:
        if _is_listening(endpoint):
            raise zmq.ZMQError(errno.EADDRINUSE)
        socket.bind(endpoint)
    except zmq.ZMQError:
        socket.close(linger=0)
        raise
    return socket


def _allow_ipv6(socket: Socket, endpoint: str) -> None:
    """Enable IPv6 for an address, not for a name: libzmq would ignore the IPv4 addresses of a name
    with both."""
    socket.setsockopt(zmq.IPV6, endpoint.startswith("tcp://["))


def send(socket: Socket, frames: Sequence[bytes]) -> bool:
    """Send without waiting. False: the queue of the peer is full, or the peer is unknown. Only the
    first frame can be refused, so that no part of the message was sent."""
    *first, last = frames
    try:
        for frame in first:
            _SEND(socket, frame, _NOW_AND_MORE)
        _SEND(socket, last, _NOW)
    except zmq.ZMQError as error:
        if error.errno not in _REFUSALS:
            raise
        return False
    return True


def received(socket: Socket, messages_max: int) -> Iterator[list[bytes]]:
    """Yield the messages that have arrived, at most ``messages_max``."""
    for _ in range(messages_max):
        try:
            frame = socket.recv(_NOW, copy=False)
        except zmq.Again:
            return
        # As recv_multipart, without a getsockopt call per frame.
        frames = [frame.bytes]
        while frame.more:
            frame = socket.recv(_NOW, copy=False)
            frames.append(frame.bytes)
        yield frames


def unbind(socket: Socket) -> None:
    """Close a bound socket and end all its connections, so that its endpoint can be bound again:
    libzmq closes it on another thread, and might then remove the new socket's file."""
    endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    socket.close(linger=0)
    if endpoint.startswith("ipc://"):
        path = Path(endpoint.removeprefix("ipc://"))
        deadline_s = time.monotonic() + UNBIND_S_MAX
        while _is_listening(endpoint) and time.monotonic() < deadline_s:
            time.sleep(UNBIND_POLL_S)
        if path.exists():
            time.sleep(UNLINK_S)


def _is_listening(endpoint: str) -> bool:
    """Whether a process listens on this Unix socket. libzmq would replace its file, silently."""
    if not endpoint.startswith("ipc://"):
        return False
    with host_socket.socket(host_socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(endpoint.removeprefix("ipc://"))
        except BlockingIOError:
            return True  # It is stopped, and its queue of connections is full.
        except OSError:
            return False
        return True


def _connected(socket: Socket, endpoint: str, keys: Keys | None, events: int) -> Socket:
    if keys is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.public["broker"])
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public[keys.role])
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_INTERVAL_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_INTERVAL_MAX_MS)
    if events:
        socket.get_monitor_socket(events)
    _allow_ipv6(socket, endpoint)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError:
        socket.close(linger=0)
        raise
    return socket
