"""Counts and logs connections that end before the ZAP handler sees a key: peers without keys, peers
with another broker's key, and other programs, such as port probes."""

from __future__ import annotations

from collections import Counter
from typing import Final

import structlog
import zmq
from zmq.utils.monitor import recv_monitor_message

from broker.metrics import HANDSHAKES_FAILED
from wire.sockets import Socket

LOG_INTERVAL_S: Final = 60.0
"""For each socket: a peer without keys tries twice a second."""
_FAILURES: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL  # Another mechanism, or another key of the broker.
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL  # The peer has given up, or is silent.
)


class Handshakes:
    """Watches bound sockets, on the thread that owns them."""

    def __init__(self) -> None:
        self._watched: dict[str, tuple[Socket, Socket]] = {}
        """Each socket and its monitor, by the socket's name."""
        self._unlogged: Counter[str] = Counter()
        self._log_due_s: dict[str, float] = {}

    def watch(self, name: str, socket: Socket) -> None:
        self._watched[name] = socket, socket.get_monitor_socket(_FAILURES)

    def turn(self, now_s: float) -> None:
        """Count the failures since the last call."""
        for name, (_, monitor) in self._watched.items():
            while monitor.poll(0):
                recv_monitor_message(monitor)
                HANDSHAKES_FAILED.labels(name).inc()
                self._unlogged[name] += 1
            if self._unlogged[name] and now_s >= self._log_due_s.get(name, now_s):
                self._log_due_s[name] = now_s + LOG_INTERVAL_S
                failed = self._unlogged.pop(name)
                structlog.get_logger().warning("bus_handshakes_failed", socket=name, count=failed)

    def forget(self) -> None:
        """Call before the sockets are closed."""
        for socket, monitor in self._watched.values():
            socket.disable_monitor()
            monitor.close(linger=0)
        self._watched.clear()
