"""The registry of sessions, with its stores out of reach. Resumption: tests/integration."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from websockets.frames import CloseCode

from gateway.dialects.native import Native
from gateway.server import Server
from gateway.session import events as e
from gateway.session.limits import FileTraits
from gateway.session.resume import ResumePoint, token_hash
from gateway.session.states import State
from gateway.settings import GatewaySettings
from gateway.storage.callers import NOBODY, Caller
from wire.messages import JOB_DEADLINE_MS_MAX, Abilities, Claimed, ServedModel, Stored, StoredKey
from wire.records import DEFAULT_TENANT


class Client:
    """A connection that keeps its answers."""

    def __init__(self) -> None:
        self.answers: list[e.Answer] = []
        self.code = 0

    def answer(self, answer: e.Answer) -> None:
        self.answers.append(answer)

    def close(self, code: int, reason: str) -> None:
        self.code = code

    def displace(self, code: int, reason: str) -> None: ...


START = e.Start(
    session_id="s",
    user_id="u",
    mode="auto",
    sample_rate_hz=16_000,
    language="",
    hotwords=(),
    partials=False,
    resume_token=None,
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("SEGMENT_DEADLINE_S", "2.5")
    made = Server(GatewaySettings())

    async def no(*_arguments: Any) -> None:
        return None

    monkeypatch.setattr(made.redis_metadata, "session_exists", no)
    monkeypatch.setattr(made.reader, "status", no)
    monkeypatch.setattr(made.brokers, "send", lambda _message: True)
    return made


def test_settings_become_limits_of_sessions(server: Server) -> None:
    limits = server.registry.new_runner(NOBODY, Native()).session.limits
    assert (limits.segment_deadline_ms, limits.resume_wait_s) == (2_500, 60.0)
    bulk = server.registry.new_runner(NOBODY, FileTraits("openai")).session.limits
    assert bulk.segment_deadline_ms == JOB_DEADLINE_MS_MAX
    assert (bulk.resume_wait_s, bulk.stored_wait_s) == (0, 0)


async def test_a_claimed_id_is_taken_until_the_session_is_forgotten(server: Server) -> None:
    first = server.registry.new_runner(NOBODY, Native())
    assert await server.registry.reserve_or_resume(first, START) is first
    assert server.is_here("s", DEFAULT_TENANT) and server.sessions["s"] is first
    second = await server.registry.reserve_or_resume(
        server.registry.new_runner(NOBODY, Native()), START
    )
    assert isinstance(second, e.Problem) and second.code == "session_exists"
    server.registry.forget("s")
    assert not server.is_here("s", DEFAULT_TENANT)


async def test_an_id_that_a_store_knows_is_taken(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken(_session_id: str) -> bool:
        return True

    monkeypatch.setattr(server.reader, "exists", taken)
    found = await server.registry.reserve_or_resume(
        server.registry.new_runner(NOBODY, Native()), START
    )
    assert isinstance(found, e.Problem) and found.code == "session_exists"


async def test_a_session_here_is_resumed_with_its_token_by_its_tenant_only(server: Server) -> None:
    runner = server.registry.new_runner(NOBODY, Native())
    await server.registry.reserve_or_resume(runner, START)
    runner.open(Client())
    runner.begin(START)
    token = runner.session.resume_token
    for shown, tenant, found in (
        (token, DEFAULT_TENANT, runner),
        ("another", DEFAULT_TENANT, None),
        (token, "acme", None),
    ):
        fresh = server.registry.new_runner(Caller(tenant=tenant), Native())
        resumed = await server.registry.reserve_or_resume(fresh, _with_token(shown))
        assert resumed is found or (found is None and isinstance(resumed, e.Problem))


def _with_token(token: str) -> e.Start:
    return replace(START, resume_token=token)


async def test_a_session_of_a_newer_generation_elsewhere_is_handed_over(server: Server) -> None:
    runner = server.registry.new_runner(NOBODY, Native())
    await server.registry.reserve_or_resume(runner, START)
    runner.open(Client())
    runner.begin(START)
    key = StoredKey(kind="record", session_id="s", seq=0, generation=0)
    server._on_message(Stored(gateway_id=server.gateway_id, keys=(key,), superseded=(0,)))
    assert not server.is_here("s", DEFAULT_TENANT)


async def test_a_session_that_is_deleted_elsewhere_ends_here(server: Server) -> None:
    client = Client()
    runner = server.registry.new_runner(NOBODY, Native())
    await server.registry.reserve_or_resume(runner, START)
    runner.open(client)
    runner.begin(START)
    for token, here in (("another", True), (runner.session.resume_token, False)):
        server._on_message(
            Claimed(session_id="s", generation=0, resume_token_hash=token_hash(token), deleted=True)
        )
        assert server.is_here("s", DEFAULT_TENANT) is here
    assert runner.session.state is State.RELEASED
    assert client.code == CloseCode.GOING_AWAY
    assert isinstance(client.answers[-1], e.Problem) and client.answers[-1].code == "deleted"


# ------------------------------------------------------------------------------------------- models

ZH = ServedModel(
    name="zh", model="paraformer-zh", workers=1, abilities=Abilities(languages=("zh",))
)


@pytest.fixture
def served(server: Server) -> Server:
    server.models.note((ServedModel(name="en", model="whisper-base", workers=1), ZH), 0.0)
    return server


async def test_a_session_begins_with_its_model(served: Server) -> None:
    asked: list[str] = []

    def admit(model: str) -> None:
        asked.append(model)

    runner = served.registry.new_runner(NOBODY, Native())
    start = replace(START, language="zh-CN", hotwords=("a",))
    found = await served.registry.reserve_or_resume(runner, start, admit)
    assert found is runner and runner.model == ZH and asked == ["zh"]
    client = Client()
    runner.open(client)
    runner.begin(start)
    (started,) = client.answers
    assert isinstance(started, e.Started)
    assert (started.model, started.abilities) == ("zh", ZH.abilities)
    assert [warning.code for warning in started.warnings] == ["hotwords_ignored"]
    assert runner.session.start is not None and runner.session.start.model == "zh"


async def test_an_unknown_model_or_one_without_room_takes_no_id(served: Server) -> None:
    runner = served.registry.new_runner(NOBODY, Native())
    unknown = await served.registry.reserve_or_resume(runner, replace(START, model="fr"))
    assert isinstance(unknown, e.Problem) and unknown.code == "unknown_model"
    full = e.Problem(code="overloaded", message="")
    assert await served.registry.reserve_or_resume(runner, START, lambda _model: full) is full
    assert not served.is_here("s", DEFAULT_TENANT)


@pytest.mark.parametrize(
    ("stored", "asked", "model"), [("zh", "en", "zh"), ("gone", "", "gone"), ("", "zh", "zh")]
)
async def test_a_session_that_is_taken_over_keeps_its_model(
    served: Server, monkeypatch: pytest.MonkeyPatch, stored: str, asked: str, model: str
) -> None:
    async def take(_session_id: str, _token: str, _tenant: str) -> ResumePoint:
        return ResumePoint(generation=1, resumed=True, started_at_ms=1, model=stored)

    monkeypatch.setattr(served.registry._takeover, "take", take)
    start = replace(_with_token("t"), model=asked)
    found = await served.registry.reserve_or_resume(
        served.registry.new_runner(NOBODY, Native()), start
    )
    assert not isinstance(found, e.Problem) and found.model.name == model
