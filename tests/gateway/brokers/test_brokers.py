"""The gateway's links to two brokers, real ROUTERs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.brokers.brokers import Brokers
from tests.broker.driving import job
from tests.gateway.brokers.test_client import Peer, load
from wire import codec
from wire.messages import Cancel, Job, Load, Message, Record

WAIT_S = 30.0
SILENCE_S = 5.0
"""Longer than the product's: a busy machine may keep all sides of these tests still for seconds."""
SESSIONS = [f"session-{number}" for number in range(20)]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("choice", "contact"):
        monkeypatch.setattr(f"gateway.brokers.{module}.SILENCE_S", SILENCE_S)


class Gateway:
    def __init__(self, endpoints: str) -> None:
        self.loads: list[Load] = []
        self.lost: set[str] = set()
        self.subscribed = 0
        self.brokers = Brokers(
            endpoints,
            "gateway-1",
            system_id="",
            on_message=self._take,
            on_jobs_lost=self._note_lost,
            on_subscribed=self._note_subscribed,
        )

    def _take(self, message: Message) -> None:
        assert isinstance(message, Load)
        self.loads.append(message)

    def _note_lost(self, session_ids: Iterable[str]) -> None:
        self.lost |= set(session_ids)

    def _note_subscribed(self) -> None:
        self.subscribed += 1


@pytest.fixture
def endpoints(tmp_path: Path) -> list[str]:
    return [f"ipc://{tmp_path}/front{number}" for number in (1, 2)]


@pytest.fixture
def peers(endpoints: list[str]) -> Iterator[list[Peer]]:
    made = [Peer(endpoint) for endpoint in endpoints]
    yield made
    for peer in made:
        peer.close()


@pytest.fixture
async def gateway(endpoints: list[str], peers: list[Peer]) -> AsyncIterator[Gateway]:
    made = Gateway(",".join(endpoints))
    made.brokers.open()
    yield made
    await made.brokers.close()


def jobs_of(peer: Peer) -> set[str]:
    """Sessions of the jobs that have arrived."""
    found = set()
    while peer.waits():
        _, message = peer.receive()
        if isinstance(message, Job | Cancel):
            found.add(message.session_id)
    return found


def records_of(peer: Peer) -> list[Record]:
    found = []
    while peer.waits():
        _, message = peer.receive()
        if isinstance(message, Record):
            found.append(message)
    return found


async def report(peers: dict[str, Peer], seconds: float) -> None:
    """Each broker of these names reports its load ten times a second."""
    for _ in range(round(seconds * 10)):
        for name, peer in peers.items():
            peer.send(b"gateway-1", codec.encode(load(name)))
        await asyncio.sleep(0.1)


async def report_until(peers: dict[str, Peer], condition: Callable[[], bool]) -> None:
    """Report until ``condition`` holds, and somewhat longer: what is too much would come then."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await report(peers, 0.1)
    await report(peers, 0.3)


class Arrived:
    """Sessions of all jobs that have arrived at each peer so far."""

    def __init__(self, *peers: Peer) -> None:
        self._peers = peers
        self.sessions: list[set[str]] = [set() for _ in peers]

    def are(self, expected: Iterable[str]) -> bool:
        for found, peer in zip(self.sessions, self._peers, strict=True):
            found |= jobs_of(peer)
        return set().union(*self.sessions) == set(expected)


async def test_sessions_are_divided_and_leave_a_silent_broker(
    gateway: Gateway, peers: list[Peer], endpoints: list[str]
) -> None:
    for peer in peers:
        await asyncio.to_thread(peer.receive)
    both = dict(zip(("one", "two"), peers, strict=True))
    await report(both, SILENCE_S + 1.0)
    assert gateway.loads[-1].workers == 1
    for session_id in SESSIONS:
        assert gateway.brokers.send(job(0, session_id=session_id))
    arrived = Arrived(*peers)
    await report_until(both, lambda: arrived.are(SESSIONS))
    assert arrived.are(SESSIONS)
    first, second = arrived.sessions
    assert not first & second and first and second
    assert [state.sessions for state in gateway.brokers.states()] == [len(first), len(second)]

    gateway.lost.clear()
    await report_until({"one": peers[0]}, lambda: second <= gateway.lost)
    assert gateway.lost == second
    assert [state.live for state in gateway.brokers.states()] == [True, False]
    for session_id in second:
        assert gateway.brokers.send(Cancel(session_id=session_id))
    cancelled = Arrived(peers[0])
    await report_until({"one": peers[0]}, lambda: cancelled.are(second))
    assert cancelled.are(second)


async def test_a_broker_with_a_new_epoch_gets_the_jobs_of_its_sessions_again(
    gateway: Gateway, peers: list[Peer]
) -> None:
    for peer in peers:
        await asyncio.to_thread(peer.receive)
    both = dict(zip(("one", "two"), peers, strict=True))
    # Longer than SETTLE_S: the note of the first connection may come behind the first load.
    await report(both, 1.5)
    assert all(state.live for state in gateway.brokers.states())
    for session_id in SESSIONS:
        gateway.brokers.send(job(0, session_id=session_id))
    arrived = Arrived(*peers)
    await report_until(both, lambda: arrived.are(SESSIONS))
    second = arrived.sessions[1]
    gateway.lost.clear()
    await report_until({"one": peers[0], "three": peers[1]}, lambda: second <= gateway.lost)
    assert gateway.lost == second
    gateway.brokers.forget(min(second))
    gateway.lost.clear()
    second -= {min(second)}
    await report_until({"one": peers[0], "four": peers[1]}, lambda: second <= gateway.lost)
    assert gateway.lost == second


async def test_it_is_noted_when_persistence_subscribes_to_a_broker(
    gateway: Gateway, peers: list[Peer]
) -> None:
    peer = peers[0]
    await asyncio.to_thread(peer.receive)
    reports = [("one", True), ("one", True), ("one", False), ("one", True), ("two", True)]
    counts = []
    for number, (epoch, subscribed) in enumerate(reports, 1):
        peer.send(b"gateway-1", codec.encode(replace(load(epoch), subscribed=subscribed)))
        async with asyncio.timeout(WAIT_S):
            while len(gateway.loads) < number:
                await asyncio.sleep(0.01)
        counts.append(gateway.subscribed)
    assert counts == [1, 1, 1, 2, 3]


async def test_without_a_broker_nothing_is_sent() -> None:
    alone = Gateway("tcp://nowhere.invalid:7101")
    alone.brokers.open()
    assert not alone.brokers.send(Cancel(session_id="a"))
    assert alone.brokers.states() == [] and alone.brokers.answer_delay_s == 0.0
    await alone.brokers.close()


async def test_a_record_that_was_not_confirmed_goes_through_every_broker(
    gateway: Gateway, peers: list[Peer]
) -> None:
    for peer in peers:
        await asyncio.to_thread(peer.receive)
    both = dict(zip(("one", "two"), peers, strict=True))
    await report_until(both, lambda: all(state.live for state in gateway.brokers.states()))
    found: list[list[Record]] = [[], []]

    def have_come(count: int) -> bool:
        for each, peer in zip(found, peers, strict=True):
            each += records_of(peer)
        return sum(map(len, found)) >= count

    record = Record(session_id="s", record_seq=0, body={})
    assert gateway.brokers.send(record)
    await report_until(both, lambda: have_come(1))
    assert have_come(1) and sorted(map(len, found)) == [0, 1]
    assert gateway.brokers.send(record, again=True)
    await report_until(both, lambda: have_come(3))
    assert have_come(3) and sorted(map(len, found)) == [1, 2]
