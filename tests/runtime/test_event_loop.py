"""The pauses of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import time
from collections.abc import Iterator

import pytest

from runtime import event_loop
from runtime.event_loop import PAUSE_S, SOCKETS_MANY, WINDOW_S, PausingSelector


class Clients:
    """Sockets of clients, a selector that waits for their messages, and the pauses it has made."""

    def __init__(self, count: int) -> None:
        self.now_s = 100.0
        self.pauses_s: list[float] = []
        self.pairs = [socket.socketpair() for _ in range(count)]
        self.selector = PausingSelector()
        for served, _ in self.pairs:
            self.selector.register(served, selectors.EVENT_READ)

    def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds

    def speak(self, *numbers: int) -> int:
        """Clients send a message each; return how many the selector finds at once."""
        for number in numbers:
            self.pairs[number][1].send(b"x")
        ready = self.selector.select(1.0)
        for key, _ in ready:
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.recv(100)
        return len(ready)

    def window(self) -> None:
        self.now_s += WINDOW_S

    def crowd(self) -> None:
        """All clients have spoken in the last window, and a new one has begun."""
        self.window()
        self.speak(*range(SOCKETS_MANY))
        self.pauses_s.clear()


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    clients = Clients(SOCKETS_MANY)
    monkeypatch.setattr(time, "monotonic", lambda: clients.now_s)
    monkeypatch.setattr(time, "sleep", clients.sleep)
    with contextlib.closing(clients.selector):
        yield clients
    for pair in clients.pairs:
        for each in pair:
            each.close()


def test_while_many_clients_speak_the_loop_pauses_before_it_waits(many: Clients) -> None:
    many.crowd()
    assert many.speak(0, 1, 2) == 3
    assert many.pauses_s == [PAUSE_S]


def test_a_timer_is_not_delayed_and_ready_callbacks_do_not_wait(many: Clients) -> None:
    many.crowd()
    many.selector.select(PAUSE_S / 4)
    many.selector.select(0)
    assert many.pauses_s == [PAUSE_S / 4]
    many.pairs[0][1].send(b"x")
    assert len(many.selector.select(None)) == 1
    assert many.pauses_s == [PAUSE_S / 4, PAUSE_S]


def test_a_client_that_sends_fast_sees_no_pause(many: Clients) -> None:
    for _ in range(10 * SOCKETS_MANY):
        assert many.speak(0) == 1
        many.now_s += WINDOW_S / SOCKETS_MANY
    assert many.pauses_s == []


def test_when_few_clients_are_left_the_pauses_end(many: Clients) -> None:
    many.crowd()
    many.window()
    many.speak(0)
    many.window()
    many.speak(0)
    many.pauses_s.clear()
    many.speak(0)
    assert many.pauses_s == []


def test_the_loop_is_asyncios() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return await asyncio.to_thread(lambda: 7)

    with asyncio.Runner(loop_factory=event_loop.new_event_loop) as runner:
        assert runner.run(answer()) == 7
