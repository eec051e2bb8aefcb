"""The gateway's links to two brokers, real ROUTERs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.brokers.brokers import Brokers
from gateway.brokers.contact import SILENCE_S
from tests.broker.driving import job
from tests.gateway.brokers.test_client import Peer, load
from wire import codec
from wire.messages import Cancel, Job, Load, Message, Record

WAIT_S = 20.0
SESSIONS = [f"session-{number}" for number in range(20)]


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
    await report(both, 0.5)
    first, second = (jobs_of(peer) for peer in peers)
    assert first | second == set(SESSIONS) and not first & second and first and second
    assert [state.sessions for state in gateway.brokers.states()] == [len(first), len(second)]

    gateway.lost.clear()
    async with asyncio.timeout(WAIT_S):
        while not second <= gateway.lost:
            await report({"one": peers[0]}, 0.2)
    assert gateway.lost == second
    assert [state.live for state in gateway.brokers.states()] == [True, False]
    for session_id in second:
        assert gateway.brokers.send(Cancel(session_id=session_id))
    await report({"one": peers[0]}, 0.5)
    assert jobs_of(peers[0]) == second


async def test_a_broker_with_a_new_epoch_gets_the_jobs_of_its_sessions_again(
    gateway: Gateway, peers: list[Peer]
) -> None:
    for peer in peers:
        await asyncio.to_thread(peer.receive)
    both = dict(zip(("one", "two"), peers, strict=True))
    await report(both, 0.5)
    for session_id in SESSIONS:
        gateway.brokers.send(job(0, session_id=session_id))
    await report(both, 0.5)
    second = jobs_of(peers[1])
    gateway.lost.clear()
    await report({"one": peers[0], "three": peers[1]}, 0.5)
    assert gateway.lost == second
    gateway.brokers.forget(min(second))
    gateway.lost.clear()
    await report({"one": peers[0], "four": peers[1]}, 0.5)
    assert gateway.lost == second - {min(second)}


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
    await report(both, 0.5)
    record = Record(session_id="s", record_seq=0, body={})
    assert gateway.brokers.send(record)
    await report(both, 0.5)
    assert [records_of(peer).count(record) for peer in peers].count(1) == 1
    assert gateway.brokers.send(record, again=True)
    await report(both, 0.5)
    assert [records_of(peer) for peer in peers] == [[record], [record]]
