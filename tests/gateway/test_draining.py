"""The order of a drain, with sessions that finish, and with sessions that never do."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from gateway import draining
from gateway.server import Server
from gateway.session.states import State


class Runner:
    """A session that ends when it is interrupted, or never."""

    def __init__(self, server: Gateway, name: str, *, attached: bool, ends: bool = True) -> None:
        self.attached = attached
        self.interrupted = 0
        self.session = SimpleNamespace(state=State.ACTIVE)
        self._server, self._name, self._ends = server, name, ends
        server.sessions[name] = self

    def interrupt(self) -> None:
        self.interrupted += 1
        self._server.log.append(f"interrupt {self._name}")
        self.session.state = State.DONE
        if self._ends:
            del self._server.sessions[self._name]


class Gateway:
    """The parts of ``Server`` that a drain uses."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.sessions: dict[str, Runner] = {}
        self.gate = SimpleNamespace(draining=False)
        self.unconfirmed: list[str] = []
        self.outbox = self
        self.spool = SimpleNamespace(write=lambda records: self.log.append(f"spool {records}"))

    def __len__(self) -> int:
        return len(self.unconfirmed)

    def records(self) -> list[str]:
        return self.unconfirmed


async def drain(gateway: Gateway) -> None:
    await draining.drain(cast(Server, gateway))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "DRAIN_POLL_S", 0.001)
    monkeypatch.setattr(draining, "DRAIN_SESSIONS_S", 0.05)
    monkeypatch.setattr(draining, "DRAIN_RECORDS_S", 0.05)


async def test_an_idle_gateway_drains_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "DRAIN_SESSIONS_S", 3_600.0)
    monkeypatch.setattr(draining, "DRAIN_RECORDS_S", 3_600.0)
    gateway = Gateway()
    await drain(gateway)
    assert gateway.gate.draining
    assert gateway.log == ["spool []"]


async def test_sessions_with_clients_may_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "DRAIN_SESSIONS_S", 3_600.0)
    gateway = Gateway()
    runner = Runner(gateway, "a", attached=True)
    draining_task = asyncio.create_task(drain(gateway))
    await asyncio.sleep(0.02)
    assert gateway.gate.draining and not runner.interrupted and not draining_task.done()
    del gateway.sessions["a"]
    await draining_task
    assert not runner.interrupted


async def test_sessions_without_clients_are_interrupted_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draining, "DRAIN_SESSIONS_S", 3_600.0)
    gateway = Gateway()
    Runner(gateway, "a", attached=False)
    await drain(gateway)
    assert gateway.log == ["interrupt a", "spool []"]


async def test_after_the_deadline_the_rest_is_interrupted_once() -> None:
    gateway = Gateway()
    ends = Runner(gateway, "a", attached=True)
    hangs = Runner(gateway, "b", attached=True, ends=False)
    await drain(gateway)
    assert (ends.interrupted, hangs.interrupted) == (1, 1)
    assert gateway.log[-1] == "spool []"


async def test_a_session_that_starts_during_the_drain_is_interrupted() -> None:
    gateway = Gateway()
    gateway.unconfirmed = ["record"]
    first = Runner(gateway, "first", attached=False)
    draining_task = asyncio.create_task(drain(gateway))
    while not first.interrupted:
        await asyncio.sleep(0)
    late = Runner(gateway, "late", attached=True)
    await draining_task
    assert late.interrupted == 1


async def test_unconfirmed_records_are_written_to_the_spool_last() -> None:
    gateway = Gateway()
    gateway.unconfirmed = ["record"]
    Runner(gateway, "a", attached=False)
    await drain(gateway)
    assert gateway.log == ["interrupt a", "spool ['record']"]


async def test_the_wait_for_records_ends_when_all_are_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(draining, "DRAIN_RECORDS_S", 3_600.0)
    gateway = Gateway()
    gateway.unconfirmed = ["record"]
    asyncio.get_running_loop().call_later(0.02, gateway.unconfirmed.clear)
    await drain(gateway)
    assert gateway.log == ["spool []"]
