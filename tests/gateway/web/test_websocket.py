"""A connection whose session fails by an internal error. Everything else about connections is
tested with real clients in tests/integration."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from starlette.websockets import WebSocket, WebSocketState

from gateway.admission.policy import Refusal
from gateway.audio.timeline import AudioDecoded
from gateway.dialects.dialect import Dialect, Parsed, Reply
from gateway.dialects.funasr import Funasr
from gateway.dialects.native import Native
from gateway.server import Server
from gateway.session import events as e
from gateway.session.core import TRANSITIONS, Session
from gateway.session.runner import Services, SessionRunner
from gateway.session.states import State
from gateway.settings import GatewaySettings
from gateway.storage.callers import Caller
from gateway.web.websocket import WebSocketConnection
from tests.gateway.session_driver import ENDPOINTER, LIMITS
from wire.messages import Cancel, Job, Record, Result, StoredKey

WAIT_S = 30.0
"""For steps that take milliseconds on an idle machine."""
CLOSED_1013 = "asr_gateway_closed_connections_total", {"code": "1013"}

BAD_MESSAGES = "asr_gateway_problems_total", {"code": "bad_message"}


class ScriptedSocket:
    """Receives what the test says; keeps what is sent."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.application_state = WebSocketState.CONNECTED
        self.client = None
        self.scope: dict[str, Any] = {}

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    async def send_text(self, text: str) -> None:
        self.sent.append(text)

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self.application_state = WebSocketState.DISCONNECTED
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": code})


class NoServices:
    """Takes everything, answers nothing: no audio is sent in these tests."""

    settings = GatewaySettings(chunk_bytes_max=1 << 20)

    def __init__(self) -> None:
        self.released = self.idle = 0
        self.registry = self.gate = self
        self.refusal: Refusal | None = None
        self.asked: list[str] = []
        self.runners: list[SessionRunner] = []

    def send(self, message: Job | Cancel) -> None: ...
    def submit_record(self, record: Record) -> None: ...
    def keep_result(self, result: Result, *, contested: bool, waited_s: float) -> None: ...
    def new_audio(self, start: e.Start, first_sample: int) -> object:
        class Audio:
            async def feed(
                self, data: bytes, *, whole: bool, continues: bool, more: bool, ends: bool
            ) -> AudioDecoded:
                return AudioDecoded(pcm=b"")

            async def finish(self) -> AudioDecoded:
                return AudioDecoded(tail=b"")

            async def close(self) -> None: ...

        return Audio()

    async def reserve_or_resume(
        self, runner: SessionRunner, start: e.Start, admit: Callable[[str], e.Problem | None]
    ) -> SessionRunner | e.Problem:
        self.asked.append(start.model)
        return admit("demo") or runner

    def note_idle(self, address: str, count: int) -> None:
        self.idle += count

    def enter_model(self, model: str) -> Refusal | None:
        return self.refusal

    def enter_session(self, caller: Caller) -> Refusal | None:
        return None

    def note_audio(self, caller: Caller, audio_s: float) -> None: ...
    def refused_audio(self, caller: Caller) -> e.AudioRefused | None:
        return None

    def new_runner(self, caller: Caller, dialect: Dialect) -> SessionRunner:
        session = Session(
            LIMITS,
            ENDPOINTER,
            resume_token="t",
            client=caller.address,
            tenant=caller.tenant,
            wall_offset_ms=0,
        )
        self.runners.append(SessionRunner(session, cast(Services, self), dialect, caller))
        return self.runners[-1]

    def session_ended(self, runner: SessionRunner) -> None:
        self.released += 1


def make(
    dialect: Dialect | None = None, *, address_model: str = "", admitted: str | None = None
) -> tuple[ScriptedSocket, NoServices, SessionRunner, WebSocketConnection]:
    socket, services = ScriptedSocket(), NoServices()
    connection = WebSocketConnection(
        cast(WebSocket, socket),
        dialect or Native(),
        cast(Server, services),
        address_model=address_model,
        admitted=admitted,
    )
    (runner,) = services.runners
    return socket, services, runner, connection


async def test_a_bug_in_one_session_closes_it_with_1011(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket, services, runner, connection = make()
    before = REGISTRY.get_sample_value("asr_gateway_failed_sessions_total") or 0.0
    socket.incoming.put_nowait(
        {"type": "websocket.receive", "text": '{"action":"start","session_id":"a"}'}
    )
    running = asyncio.create_task(connection.run())
    while not socket.sent:
        await asyncio.sleep(0)
    assert json.loads(socket.sent[0])["status"] == "session_started"

    def broken(_session: Session, _event: e.Event, _now_s: float) -> list[e.Action]:
        raise AssertionError("a bug")

    monkeypatch.setitem(TRANSITIONS, (State.ACTIVE, e.Tick), (State.ACTIVE, broken))
    runner.feed(e.Tick())
    async with asyncio.timeout(WAIT_S):
        await running
    assert socket.closed is not None and socket.closed[0] == 1011
    assert services.released == 1
    assert REGISTRY.get_sample_value("asr_gateway_failed_sessions_total") == before + 1


async def test_a_chunk_over_the_limit_closes_with_1009() -> None:
    socket, _services, runner, connection = make()
    for message in (
        {"text": '{"action":"start","session_id":"a"}'},
        {"bytes": b"\0" * ((1 << 20) + 1)},
    ):
        socket.incoming.put_nowait({"type": "websocket.receive", **message})
    running = asyncio.create_task(connection.run())
    async with asyncio.timeout(WAIT_S):
        while socket.closed is None:
            await asyncio.sleep(0)
    assert socket.closed[0] == 1009
    async with asyncio.timeout(WAIT_S):
        await running
    assert runner.session.state is State.ACTIVE and not runner.attached


async def test_a_connection_is_idle_but_for_its_sessions() -> None:
    socket, services, _, connection = make()
    assert services.idle == 1
    running = asyncio.create_task(connection.run())
    for number in range(2):
        session = {"session_id": f"s{number}"}
        for action, idle in (("start", 0), ("finish", 1)):
            del socket.sent[:]
            socket.incoming.put_nowait(received({"action": action, **session}))
            async with asyncio.timeout(WAIT_S):
                while not socket.sent:
                    runner = services.runners[-1]
                    if runner.session.state is State.CONFIRMING:
                        runner.feed(e.KeysStored(keys=RECORDS))
                    await asyncio.sleep(0)
            assert services.idle == idle
    assert json.loads(socket.sent[-1])["session_id"] == "s1" and socket.closed is None
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    async with asyncio.timeout(WAIT_S):
        await running
    assert services.idle == 0


async def test_after_a_long_pause_the_next_session_is_admitted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.web.websocket.ADMISSION_KEPT_S", -1.0)
    socket, services, _, connection = make(admitted="demo")
    services.refusal = NO_WORKER
    socket.incoming.put_nowait(received(START))
    async with asyncio.timeout(WAIT_S):
        await connection.run()
    assert json.loads(socket.sent[0])["code"] == "no_worker"
    assert socket.closed == (1013, "none")


async def test_a_client_that_does_not_read_is_closed_with_1013(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.web.websocket.SEND_TIMEOUT_S", 0.05)
    socket, _services, runner, connection = make()
    before = REGISTRY.get_sample_value("asr_gateway_slow_clients_total") or 0.0
    closed = REGISTRY.get_sample_value(*CLOSED_1013) or 0.0

    async def stuck(_text: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(socket, "send_text", stuck)
    socket.incoming.put_nowait(
        {"type": "websocket.receive", "text": '{"action":"start","session_id":"a"}'}
    )
    async with asyncio.timeout(WAIT_S):
        await connection.run()
    assert socket.closed is not None and socket.closed[0] == 1013
    assert REGISTRY.get_sample_value("asr_gateway_slow_clients_total") == before + 1
    assert REGISTRY.get_sample_value(*CLOSED_1013) == closed + 1
    assert runner.session.state is State.ACTIVE and not runner.attached


async def test_a_connection_that_is_lost_during_a_send_ends_without_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket, _services, runner, connection = make()
    sending, sent = asyncio.Event(), asyncio.Event()

    async def slow(_text: str) -> None:
        sending.set()
        await sent.wait()

    monkeypatch.setattr(socket, "send_text", slow)
    socket.incoming.put_nowait(
        {"type": "websocket.receive", "text": '{"action":"start","session_id":"a"}'}
    )
    running = asyncio.create_task(connection.run())
    async with asyncio.timeout(WAIT_S):
        await sending.wait()
        socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
        while runner.attached:
            await asyncio.sleep(0)
        sent.set()
        await running


class SlowAudio:
    """Decodes nothing until the test allows it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def feed(
        self, data: bytes, *, whole: bool, continues: bool, more: bool, ends: bool
    ) -> AudioDecoded:
        self.begun.set()
        await self.go_on.wait()
        return AudioDecoded(tail=b"", pcm=b"", starts_container=False, ends_container=False)

    async def close(self) -> None: ...


def received(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": json.dumps(message)}


async def test_a_chunk_being_decoded_during_a_resume_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket, services, runner, connection = make()
    audio = SlowAudio()
    monkeypatch.setattr(services, "new_audio", lambda _start, _first_sample: audio)
    first = asyncio.create_task(connection.run())
    socket.incoming.put_nowait(received({"action": "start", "session_id": "a"}))
    socket.incoming.put_nowait({"type": "websocket.receive", "bytes": b"one"})
    async with asyncio.timeout(WAIT_S):
        await audio.begun.wait()

    socket2, services2, _fresh, connection2 = make()

    async def reserve_or_resume(
        _runner: SessionRunner, _start: e.Start, _admit: object
    ) -> SessionRunner:
        return runner

    monkeypatch.setattr(services2, "reserve_or_resume", reserve_or_resume)
    second = asyncio.create_task(connection2.run())
    resume = {"action": "start", "session_id": "a", "resume_token": "t"}
    socket2.incoming.put_nowait(received(resume))
    socket2.incoming.put_nowait(received({"action": "chunk", **chunk_fields(1, b"two")}))
    async with asyncio.timeout(WAIT_S):
        while not (socket2.sent and socket.closed):
            await asyncio.sleep(0)
    assert socket.closed == (1008, "resumed elsewhere")
    assert json.loads(socket2.sent[0])["next_chunk_index"] == 1
    assert runner.session.chunk_count == 1
    audio.go_on.set()
    async with asyncio.timeout(WAIT_S):
        await first
        while len(socket2.sent) < 2:
            await asyncio.sleep(0)
    assert json.loads(socket2.sent[1])["chunk_index"] == 1
    assert runner.attached and runner.session.chunk_count == 2
    socket2.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    async with asyncio.timeout(WAIT_S):
        await second
    assert not runner.attached


def chunk_fields(index: int, data: bytes) -> dict[str, Any]:
    audio = base64.b64encode(data).decode()
    return {"session_id": "a", "chunk_index": index, "audio_data": audio}


RECORDS = tuple(StoredKey(session_id="s", kind="record", seq=seq) for seq in range(3))
START = {"action": "start", "session_id": "a"}
NO_WORKER = Refusal(code="no_worker", message="none", retry_after_s=1)


async def test_a_model_without_room_refuses_the_start_with_1013() -> None:
    socket, services, runner, connection = make()
    services.refusal = NO_WORKER
    socket.incoming.put_nowait(received(START))
    async with asyncio.timeout(WAIT_S):
        await connection.run()
    assert json.loads(socket.sent[0])["code"] == "no_worker"
    assert socket.closed == (1013, "none")
    assert runner.session.state is State.DONE


async def test_a_model_that_the_gate_has_admitted_is_not_refused() -> None:
    socket, services, _, connection = make(admitted="demo")
    services.refusal = NO_WORKER
    socket.incoming.put_nowait(received(START))
    running = asyncio.create_task(connection.run())
    async with asyncio.timeout(WAIT_S):
        while not socket.sent:
            await asyncio.sleep(0)
    assert json.loads(socket.sent[0])["status"] == "session_started"
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    async with asyncio.timeout(WAIT_S):
        await running


@pytest.mark.parametrize(("named", "model"), [({}, "en"), ({"model": "zh"}, "zh")])
async def test_the_address_names_the_model_of_a_start_that_names_none(
    named: dict[str, str], model: str
) -> None:
    socket, services, _, connection = make(address_model="en")
    socket.incoming.put_nowait(received(START | named))
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    async with asyncio.timeout(WAIT_S):
        await connection.run()
    assert services.asked == [model]


async def test_a_client_that_cannot_start_again_is_closed_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket, services, _, connection = make(Funasr(lambda: "a"))

    async def unknown(*_arguments: object) -> e.Problem:
        return e.Problem(code="unknown_model", message="no such model")

    monkeypatch.setattr(services, "reserve_or_resume", unknown)
    socket.incoming.put_nowait(received({"mode": "2pass", "is_speaking": True}))
    socket.incoming.put_nowait({"type": "websocket.receive", "bytes": b"ab"})
    async with asyncio.timeout(WAIT_S):
        await connection.run()
    assert json.loads(socket.sent[0])["error"] == "unknown_model: no such model"
    assert socket.closed == (1008, "no such model")


class Polite(Funasr):
    """Greets at once, whatever the client sends."""

    def parse(self, message: str | bytes) -> Sequence[Parsed]:
        return (Reply("hello"), *super().parse(message))


async def test_a_reply_of_the_dialect_needs_no_session() -> None:
    socket, _, runner, connection = make(Polite(lambda: "a"))
    socket.incoming.put_nowait({"type": "websocket.receive", "bytes": b"ab"})
    running = asyncio.create_task(connection.run())
    async with asyncio.timeout(WAIT_S):
        while runner.session.state is State.NEW or not socket.sent:
            await asyncio.sleep(0)
    assert socket.sent == ["hello"]
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    async with asyncio.timeout(WAIT_S):
        await running


class Talkative(Native):
    """Greets, answers ``ping`` itself, and ends its session by hanging up."""

    def greeting(self) -> Sequence[str]:
        return ("hello",)

    def parse(self, message: str | bytes) -> Sequence[Any]:
        if message == "ping":
            return (Reply("pong"),)
        if message == "bad":
            return (Reply("no", problem="bad_message"),)
        events = super().parse(message)
        return (*events, e.Chunk(data=b"ab", chunk_index=None, session_id=None))

    def hung_up(self) -> Sequence[e.ClientEvent]:
        return (e.Finish(session_id="a"),)


async def test_a_dialect_greets_and_answers_itself() -> None:
    socket, _services, runner, connection = make(Talkative())
    before = REGISTRY.get_sample_value(*BAD_MESSAGES) or 0.0
    for text in ("ping", "bad"):
        socket.incoming.put_nowait({"type": "websocket.receive", "text": text})
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})
    async with asyncio.timeout(WAIT_S):
        await connection.run()
    assert socket.sent[:3] == ["hello", "pong", "no"]
    assert REGISTRY.get_sample_value(*BAD_MESSAGES) == before + 1
    assert runner.session.state is State.DONE


@pytest.mark.parametrize(("code", "ends"), [(1000, True), (1005, True), (1006, False)])
async def test_hanging_up_properly_may_end_the_session(code: int, ends: bool) -> None:
    socket, _services, runner, connection = make(Talkative())
    socket.incoming.put_nowait(received(START))
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": code})
    async with asyncio.timeout(WAIT_S):
        await connection.run()
    assert (runner.session.state is State.ACTIVE) is not ends and not runner.attached


async def test_a_refused_start_takes_nothing_of_its_message() -> None:
    socket, services, runner, connection = make(Talkative())

    async def unknown(_runner: SessionRunner, _start: e.Start, _admit: object) -> e.Problem:
        return e.Problem(code="unknown_model", message="none")

    services.reserve_or_resume = unknown  # type: ignore[assignment,method-assign]
    socket.incoming.put_nowait(received(START))
    socket.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    async with asyncio.timeout(WAIT_S):
        await connection.run()
    assert [json.loads(text)["code"] for text in socket.sent[1:]] == ["unknown_model"]
    assert socket.closed is None and runner.session.chunk_count == 0
