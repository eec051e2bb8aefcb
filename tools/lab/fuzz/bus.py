"""Sends mutated frames to the broker's two sockets, in the roles of gateways and workers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Final

import zmq

from tools.lab.fuzz import messages
from wire import sockets

PEERS: Final = 4
"""Hostile peers on each socket."""
SEND_TIMEOUT_MS: Final = 60_000
"""For one message: a broker that accepts none for so long has failed."""
ANSWERS_EVERY: Final = 200
"""Messages between two reads of the broker's answers."""
LINGER_MS: Final = 30_000


class BusFuzzer:
    """Sends ``count`` messages in a thread of its own. Read the figures after ``join``."""

    def __init__(self, front: str, back: str, *, seed: int, first: int, count: int) -> None:
        self.sent = 0
        self.expected: Counter[str] = Counter()
        """Messages that the broker must count, by the label of its counter."""
        self.taken = 0
        """Valid messages; the broker may act on them."""
        self.answers = 0
        self.problem: str | None = None
        self._endpoints: dict[messages.Socket, str] = {"front": front, "back": back}
        self._numbers = range(first, first + count)
        self._seed = seed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bus-fuzzer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait; return whether the thread has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        peers: dict[messages.Socket, list[zmq.Socket[bytes]]] = {
            name: [
                sockets.connect_dealer(context, endpoint, sockets.new_identity("fuzz"))
                for _ in range(PEERS)
            ]
            for name, endpoint in self._endpoints.items()
        }
        everyone = [peer for some in peers.values() for peer in some]
        try:
            for number in self._numbers:
                if self._stop.is_set():
                    break
                message = messages.bus_message(self._seed, number)
                peer = peers[message.socket][number % PEERS]
                if not peer.poll(SEND_TIMEOUT_MS, zmq.POLLOUT):
                    self.problem = f"the broker took no message for {SEND_TIMEOUT_MS} ms"
                    break
                peer.send_multipart(message.frames, zmq.DONTWAIT)
                self._note(message)
                if self.sent % ANSWERS_EVERY == 0:
                    self._read(everyone)
        finally:
            # Closing must not lose messages in transit.
            deadline_s = time.monotonic() + 1.0
            while time.monotonic() < deadline_s:
                self._read(everyone)
                time.sleep(0.05)
            for peer in everyone:
                peer.close(linger=LINGER_MS)
            context.term()

    def _note(self, message: messages.BusMessage) -> None:
        self.sent += 1
        if message.expected is None:
            self.taken += 1
        else:
            self.expected[message.expected] += 1

    def _read(self, everyone: list[zmq.Socket[bytes]]) -> None:
        for peer in everyone:
            while peer.poll(0):
                peer.recv_multipart()
                self.answers += 1
