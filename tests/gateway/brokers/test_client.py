"""The DEALER against a real ROUTER."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import zmq
from prometheus_client import REGISTRY

from gateway.brokers import client as link_module
from gateway.brokers.client import BrokerClient
from runtime.link_rate import SENT_MEMORY_S, TRIAL_BYTES, LinkUse
from tools.lab.harness.ports import free_port
from wire import codec
from wire.messages import Cancel, Hello, Load, Message, Refused, Stored, Welcome
from wire.sockets import bind_router


def _dropped(reason: str) -> float:
    labels = {"reason": reason}
    return REGISTRY.get_sample_value("asr_gateway_bus_messages_dropped_total", labels) or 0.0


class Peer:
    """The broker's side."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = bind_router(self._context, endpoint)

    def receive(self) -> tuple[bytes, Message]:
        assert self._socket.poll(30_000), "nothing came"
        identity, *frames = self._socket.recv_multipart()
        return identity, codec.decode(frames)

    def waits(self) -> bool:
        """Whether a message has arrived."""
        return bool(self._socket.poll(0))

    def send(self, identity: bytes, frames: list[bytes]) -> None:
        self._socket.send_multipart([identity, *frames], zmq.DONTWAIT)

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()


class Gateway:
    def __init__(self, endpoint: str) -> None:
        self.messages: list[Message] = []
        self.losses = 0
        self.changed = asyncio.Event()
        self.link = BrokerClient(
            endpoint, "gateway-1", system_id="", on_message=self._take, on_jobs_lost=self._note_lost
        )

    def _take(self, message: Message) -> None:
        self.messages.append(message)
        self.changed.set()

    def _note_lost(self) -> None:
        self.losses += 1
        self.changed.set()

    async def until(self, messages: int, losses: int) -> None:
        async with asyncio.timeout(30):
            while len(self.messages) < messages or self.losses < losses:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """0.0.0.0 reaches this host, and counts as another."""
    form: str = getattr(request, "param", "ipc://{}")
    return form.format(free_port() if form.startswith("tcp") else tmp_path / "front")


@pytest.fixture
def peer(endpoint: str) -> Iterator[Peer]:
    broker = Peer(endpoint)
    yield broker
    broker.close()


@pytest.fixture
async def gateway(endpoint: str, peer: Peer) -> AsyncIterator[Gateway]:
    connected = Gateway(endpoint)
    connected.link.open()
    yield connected
    await connected.link.close()


def load(epoch: str) -> Load:
    return Load(
        broker_epoch=epoch,
        queued_audio_ms=0,
        queued=0,
        in_flight=0,
        failed_total=0,
        workers=1,
        workers_busy=0,
        throughput_rtfx=1.0,
        est_wait_ms=0,
        models=(),
    )


async def test_hello_by_its_identity_and_epochs(gateway: Gateway, peer: Peer) -> None:
    identity, hello = await asyncio.to_thread(peer.receive)
    assert (identity, hello) == (b"gateway-1", Hello(gateway_id="gateway-1", number=1))
    peer.send(identity, codec.encode(Welcome(broker_epoch="one")))
    await gateway.until(messages=0, losses=1)
    peer.send(identity, codec.encode(load("one")))
    await gateway.until(messages=1, losses=1)
    assert gateway.losses == 1
    peer.send(identity, codec.encode(load("two")))
    await gateway.until(messages=2, losses=2)
    assert gateway.messages == [load("one"), load("two")]


async def paddings_of_hellos(gateway: Gateway, peer: Peer, *, until_tried: bool) -> list[int]:
    """Sizes of the padding of the first four, and with ``until_tried`` of all up to the first one
    that has any and three more, but of a hundred at most; each is answered."""
    paddings: list[int] = []
    for number in range(1, 101):
        if len(paddings) >= 4 and (any(paddings[:-3]) or not until_tried):
            break
        identity, hello = await asyncio.to_thread(peer.receive)
        assert isinstance(hello, Hello) and hello.number == number
        paddings.append(len(hello.padding))
        received_ms = round(time.monotonic() * 1000)
        welcome = Welcome(broker_epoch="one", hello=number, received_ms=received_ms)
        peer.send(identity, codec.encode(welcome))
        await gateway.until(messages=0, losses=1)
    return paddings


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:{}"], indirect=True)
async def test_a_link_that_is_not_used_is_tried_once_the_way_is_known(
    gateway: Gateway, peer: Peer
) -> None:
    paddings = await paddings_of_hellos(gateway, peer, until_tried=True)
    assert paddings[0] == 0 and sum(paddings) == TRIAL_BYTES
    assert gateway.link.link_use.sent < TRIAL_BYTES / SENT_MEMORY_S, "a trial is no use"


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:{}", "ipc://{}"], indirect=True)
async def test_a_link_within_the_host_is_neither_tried_nor_measured(
    gateway: Gateway, peer: Peer
) -> None:
    assert await paddings_of_hellos(gateway, peer, until_tried=False) == [0, 0, 0, 0]
    gateway.link.send(Cancel(session_id="s"))
    assert gateway.link.link_use == LinkUse()


async def test_a_refusal_is_counted_each_time_and_logged_once(
    gateway: Gateway, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    identity, _ = await asyncio.to_thread(peer.receive)
    refused = _dropped("version_refused")
    for _ in range(2):
        peer.send(identity, codec.encode(Refused(version_min=2, version_max=3)))
    peer.send(identity, codec.encode(Welcome(broker_epoch="one")))
    await gateway.until(messages=0, losses=1)
    assert _dropped("version_refused") == refused + 2
    assert capsys.readouterr().out.count("protocol_version_refused") == 1


async def test_the_broker_of_another_system(
    gateway: Gateway, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    identity, _ = await asyncio.to_thread(peer.receive)
    refused = _dropped("system_refused")
    peer.send(identity, codec.encode(Refused(version_min=1, version_max=1, system_id="two")))
    peer.send(identity, codec.encode(Welcome(broker_epoch="one")))
    await gateway.until(messages=0, losses=1)
    assert _dropped("system_refused") == refused + 1
    assert "system_refused" in capsys.readouterr().out


async def test_a_burst_arrives_complete_and_in_order(gateway: Gateway, peer: Peer) -> None:
    identity, _ = await asyncio.to_thread(peer.receive)
    count = link_module.DRAIN_MESSAGES_MAX * 3 + 7
    for number in range(count):
        peer.send(identity, codec.encode(Stored(gateway_id=str(number), keys=())))
    await gateway.until(messages=count, losses=0)
    got = [message.gateway_id for message in gateway.messages if isinstance(message, Stored)]
    assert got == [str(number) for number in range(count)]


async def test_sends_arrive(gateway: Gateway, peer: Peer) -> None:
    await asyncio.to_thread(peer.receive)
    for number in range(50):
        assert gateway.link.send(Cancel(session_id=str(number)))
    received = [(await asyncio.to_thread(peer.receive))[1] for _ in range(50)]
    assert [m.session_id for m in received if isinstance(m, Cancel)] == [str(n) for n in range(50)]


async def test_garbage_is_counted_and_survived(gateway: Gateway, peer: Peer) -> None:
    identity, _ = await asyncio.to_thread(peer.receive)

    garbage, strange = _dropped("not_a_message"), _dropped("unexpected_kind")
    peer.send(identity, [b"garbage"])
    peer.send(identity, codec.encode(Hello(gateway_id="x")))
    peer.send(identity, codec.encode(load("one")))
    await gateway.until(messages=1, losses=1)
    assert _dropped("not_a_message") == garbage + 1
    assert _dropped("unexpected_kind") == strange + 1


async def test_without_a_broker_sends_are_refused_in_the_end_not_lost_silently(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wire.sockets.HIGH_WATER_MARK_MESSAGES", 10)
    monkeypatch.setattr("wire.sockets.LINGER_RESULTS_MS", 0)
    alone = Gateway(endpoint)
    alone.link.open()
    refused = _dropped("send_queue_full")
    sent = [alone.link.send(Cancel(session_id="a")) for _ in range(50)]
    await alone.link.close()
    assert sent.count(False) >= 39
    assert _dropped("send_queue_full") - refused == sent.count(False)
