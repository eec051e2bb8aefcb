"""What the server does with messages of the broker, and deletion."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from gateway.server import Server
from gateway.session import events as e
from gateway.settings import GatewaySettings
from tests.gateway.session.test_session_jobs import job
from tests.gateway.session_driver import result_of
from tests.gateway.storage.test_outbox import key, record
from wire.messages import Failure, Message, Record, ServedModel, Stored
from wire.records import DEFAULT_TENANT, DELETED_RECORD_SEQ


class Runner:
    """Takes the events of one session."""

    def __init__(self) -> None:
        self.events: list[e.Event] = []

    def feed(self, event: e.Event) -> None:
        self.events.append(event)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Messages sent to the broker."""
    messages: list[Message] = []

    def send(_client: Any, message: Message) -> bool:
        messages.append(message)
        return True

    monkeypatch.setattr("gateway.brokers.brokers.Brokers.send", send)
    return messages


def running(server: Server, session_id: str) -> Runner:
    runner = Runner()
    server.sessions[session_id] = cast(Any, runner)
    return runner


async def test_messages_of_the_broker_reach_their_sessions() -> None:
    server = Server(GatewaySettings())
    one, other = running(server, "a"), running(server, "b")
    result = result_of(job(0), "one")
    server._on_message(result)
    assert (one.events, other.events) == ([result], [])
    server._on_message(Stored(gateway_id=server.gateway_id, keys=(key("record", 0, "b"),)))
    assert other.events == [e.KeysStored(keys=(key("record", 0, "b"),))]
    server._on_jobs_lost(["b", "ended"])
    assert other.events[-1] == e.JobsMayBeLost() != one.events[-1]


@pytest.mark.parametrize("lost", [True, False], ids=["jobs lost", "persistence is back"])
async def test_records_are_sent_again_at_once_when_brokers_and_persistence_are_back(
    sent: list[Message], lost: bool
) -> None:
    server = Server(GatewaySettings())
    before_s = time.monotonic()
    server.submit_record(record(0))
    assert server.outbox.due(before_s) == []
    if lost:
        server._on_jobs_lost(())
    else:
        server.brokers._on_subscribed()
    assert server.outbox.due(time.monotonic()) == sent == [record(0)]


async def test_an_error_while_closing_skips_no_other_part(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(GatewaySettings())
    closed: list[str] = []

    async def close(name: str) -> None:
        closed.append(name)
        raise OSError(name)

    def close_at_once(name: str) -> None:
        closed.append(name)

    for part in ("redis_metadata", "brokers", "_decoders", "reader"):
        monkeypatch.setattr(getattr(server, part), "close", partial(close, part))
    for part in ("vad", "spool"):
        monkeypatch.setattr(getattr(server, part), "close", partial(close_at_once, part))
    with pytest.raises(OSError):
        await server.close()
    assert closed == ["redis_metadata", "brokers", "_decoders", "reader", "vad", "spool"]


async def test_a_default_model_that_no_worker_serves_is_logged_once() -> None:
    server = Server(GatewaySettings(asr_default_model="zh"))
    served = (ServedModel(name="en", model="w", workers=1),)
    with capture_logs() as logs:
        for now_s in range(0, 300, 10):
            server._note_models(served, float(now_s))
    (line,) = logs
    assert line["event"] == "default_model_not_served"
    assert (line["model"], line["served"], line["setting"]) == ("zh", ["en"], "ASR_DEFAULT_MODEL")


async def test_a_result_without_a_session_is_counted() -> None:
    def discarded() -> float:
        labels = {"reason": "no_session"}
        return REGISTRY.get_sample_value("asr_gateway_results_discarded_total", labels) or 0.0

    before = discarded()
    Server(GatewaySettings())._on_message(result_of(job(0), "one"))
    assert discarded() == before + 1


async def test_a_deletion_is_done_when_it_is_committed(
    sent: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.server.DELETE_CONFIRM_S", 60.0)
    server = Server(GatewaySettings())
    runner = running(server, "a")
    deletion = asyncio.create_task(server.delete("a", DEFAULT_TENANT))
    await asyncio.sleep(0)
    assert runner.events == [e.Deleted()] and "a" not in server.sessions
    (message,) = sent
    assert isinstance(message, Record) and message.record_seq == DELETED_RECORD_SEQ
    server._on_message(Stored(gateway_id=server.gateway_id, keys=(message.key,)))
    assert await deletion


async def test_a_deletion_without_commit_is_sent_again(
    sent: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.server.DELETE_CONFIRM_S", 0.0)
    server = Server(GatewaySettings())
    assert not await server.delete("a", DEFAULT_TENANT)
    assert server.outbox.due(time.monotonic() + 60) == sent


@pytest.mark.parametrize(("code", "failures"), [("overloaded", 0), ("chunk_failed", 1)])
async def test_a_job_that_is_sent_again_has_not_failed(code: str, failures: int) -> None:
    server = Server(GatewaySettings())
    server._on_message(result_of(job(0), None, Failure(code=code, message="")))
    assert sum(slot.failures for slot in server.activity.slots(time.monotonic())) == failures


async def test_the_time_until_a_record_is_stored_is_measured() -> None:
    server = Server(GatewaySettings())
    server.outbox.put_record(record(0), time.monotonic() - 3.0)

    def measured() -> list[float]:
        name = "asr_gateway_store_seconds"
        return [REGISTRY.get_sample_value(f"{name}_{of}") or 0.0 for of in ("count", "sum")]

    count, seconds = measured()
    stored = Stored(gateway_id=server.gateway_id, keys=(key("record", 0), key("record", 9)))
    server._on_message(stored)
    assert measured()[0] == count + 1
    assert measured()[1] >= seconds + 3.0
