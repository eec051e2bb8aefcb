"""The connections of a gateway, a worker or persistence to the brokers.

libzmq reconnects by itself after a lost connection, but not after a refused one: a peer with a
wrong key would stay disconnected even if its key is corrected later. After a refusal a link
therefore makes a new socket, with the keys that are on disk by then. It also reports each new
connection, because messages in transit on the previous one are lost.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Final, Literal

import structlog
import zmq
from zmq.utils.monitor import recv_monitor_message

from runtime import endpoints
from runtime.broker_addresses import BrokerAddresses
from wire import sockets
from wire.keys import KeyFiles, Keys

REMAKE_S: Final = 0.5
"""Time from a refusal to the next attempt."""
BROKEN_OFF_MAX: Final = 3
"""Consecutive handshakes that the broker ends; then it is assumed to have another key."""
UNREACHED_S: Final = 5.0
"""A link without a connection for this long is logged."""
ENDED_EARLY: Final = (
    "what listens there ends each connection: another endpoint of the broker, another program, or "
    "a broker that does not run"
)

_EVENTS: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)
_REFUSALS: Final = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the broker does not allow this key for this role",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "one side has BUS_KEYS_DIR and the other has not",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: (
        "the broker ends each handshake: broker.public is not its key"
    ),
}

Change = Literal["connected", "replaced"]
"""``replaced``: ``socket`` is another one."""
Connect = Callable[[str, Keys | None, int], sockets.Socket]
"""Makes a socket that connects to an endpoint, with these keys and a monitor of these events."""


class Link:
    """Use ``socket``, and call ``turn`` several times a second, on the thread that owns it."""

    def __init__(
        self, endpoint: str, connect: Connect, key_files: KeyFiles | None, now_s: float
    ) -> None:
        """Raises ``zmq.ZMQError`` if the endpoint is malformed."""
        self.leaves_host = endpoints.leaves_host(endpoint)
        """Capacity is measured only for such links. Within a busy host any link would seem full."""
        self._endpoint = endpoint
        self._connect = connect
        self._key_files = key_files
        self._log = structlog.get_logger().bind(endpoint=endpoint)
        self._make()
        self._remake_s: float | None = None
        self._refusal: str | None = None
        self._away_since_s: float | None = now_s
        """None: connected."""
        self._logged_away = False
        self._ended_early = False
        """A connection has ended before its handshake."""
        self._broken_off = 0
        """Handshakes that the broker has ended since the last connection."""

    def turn(self, now_s: float) -> list[Change]:
        """Follow the connection; return its changes since the last call, in order."""
        changes: list[Change] = []
        while self._monitor.poll(0):
            monitored = recv_monitor_message(self._monitor)
            event = zmq.Event(monitored["event"])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._note_connected(now_s)
                changes.append("connected")
            elif event == zmq.EVENT_DISCONNECTED:
                self._ended_early = self._away_since_s is not None
                self._away_since_s = now_s if self._away_since_s is None else self._away_since_s
            elif self._is_refusal(event, monitored["value"]):
                self._note_refusal(event, now_s)
        if self._remake_s is not None and now_s >= self._remake_s:
            self._remake_s = None
            self.close(linger_ms=0)
            self._make()
            changes.append("replaced")
        self._log_if_away(now_s)
        return changes

    @property
    def connected(self) -> bool:
        return self._away_since_s is None

    def close(self, linger_ms: int | None = None) -> None:
        """Close the socket; None: with the linger time of its kind."""
        self.socket.disable_monitor()
        self._monitor.close(linger=0)
        self.socket.close(linger_ms)

    def _make(self) -> None:
        keys = self._key_files.read_again() if self._key_files else None
        self.socket = self._connect(self._endpoint, keys, _EVENTS)
        self._monitor = self.socket.get_monitor_socket(_EVENTS)

    def _note_connected(self, now_s: float) -> None:
        if self._logged_away or self._refusal is not None:
            away_s = 0.0 if self._away_since_s is None else now_s - self._away_since_s
            self._log.info("bus_connected", after_s=round(away_s, 1))
        self._away_since_s = self._refusal = None
        self._logged_away = False
        self._broken_off = 0

    def _is_refusal(self, event: zmq.Event, error: int) -> bool:
        """``error``: of a handshake that failed without detail. It times out while the broker is
        stopped, and fails once when the broker exits. libzmq tries again after both."""
        if event != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            return True
        if self._key_files is None or error == errno.EAGAIN:
            return False
        self._broken_off += 1
        return self._broken_off >= BROKEN_OFF_MAX

    def _note_refusal(self, event: zmq.Event, now_s: float) -> None:
        if self._remake_s is None:  # libzmq may be refused more often than that.
            self._remake_s = now_s + REMAKE_S
        if self._refusal != _REFUSALS[event]:
            self._refusal = _REFUSALS[event]
            self._log.error("bus_refused", reason=self._refusal)

    def _log_if_away(self, now_s: float) -> None:
        since_s = self._away_since_s
        if since_s is None or self._logged_away or now_s - since_s < UNREACHED_S:
            return
        self._logged_away = True
        reason = {"reason": ENDED_EARLY} if self._ended_early else {}
        self._log.warning("broker_not_reached", waited_s=round(now_s - since_s, 1), **reason)


class Links:
    """A link to each broker, by its place in ``runtime.broker_addresses``, and their sockets in one
    poller. Call ``turn`` several times a second, on the thread that owns them.

    A link whose address has vanished is kept while it is connected.
    """

    def __init__(
        self,
        listed: str,
        connect: Connect,
        key_files: KeyFiles | None,
        poller: zmq.Poller,
        now_s: float,
    ) -> None:
        """``listed``: the setting with the endpoints. ``zmq.ZMQError``: one is malformed."""
        self._addresses = BrokerAddresses(listed)
        self._connect = connect
        self._key_files = key_files
        self._poller = poller
        self._links: dict[str, Link] = {}
        try:
            self._follow_addresses(now_s)
        except zmq.ZMQError:
            self.close(linger_ms=0)
            raise

    def __iter__(self) -> Iterator[tuple[str, Link]]:
        return iter(self._links.items())

    def get(self, place: str) -> Link | None:
        return self._links.get(place)

    @property
    def connected(self) -> int:
        """Number of links that are connected."""
        return sum(link.connected for link in self._links.values())

    def turn(self, now_s: float) -> list[str]:
        """Follow addresses and connections. Return the places with a new connection."""
        new = []
        for place, link in self._links.items():
            before = link.socket
            changes = link.turn(now_s)
            if "replaced" in changes:
                self._poller.unregister(before)
                self._poller.register(link.socket, zmq.POLLIN)
            if "connected" in changes:
                new.append(place)
        self._follow_addresses(now_s)
        return new

    def close(self, linger_ms: int | None = None) -> None:
        self._addresses.close()
        for link in self._links.values():
            link.close(linger_ms)

    def _follow_addresses(self, now_s: float) -> None:
        current = self._addresses.current
        for place in current.keys() - self._links.keys():
            link = Link(current[place], self._connect, self._key_files, now_s)
            self._links[place] = link
            self._poller.register(link.socket, zmq.POLLIN)
        for place in self._links.keys() - current.keys():
            if not self._links[place].connected:
                gone = self._links.pop(place)
                self._poller.unregister(gone.socket)
                gone.close(linger_ms=0)
        self._addresses.hurry = self.connected < len(self._links) or not self._links
