"""The gate: counting of connections, and the order of its checks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY

from gateway.admission.gate import ConnectionGate
from gateway.admission.idle import IdleConnections
from gateway.admission.policy import Admission
from gateway.admission.quotas import Quotas
from gateway.storage.callers import NOBODY, Caller, TokenLimits
from gateway.storage.redis_metadata import RedisMetadata
from gateway.telemetry.activity import Activity
from tests.gateway.admission.test_policy import LIMITS, LOAD
from wire.messages import ServedModel


@dataclass
class Surroundings:
    """Redis, and the gateway's sessions."""

    total: int = 1
    used_elsewhere: int = 0
    here: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    storage_backlog_full: bool = False
    asked: list[str] = field(default_factory=list)
    gateways: int = 2
    known_s: float = 1.0

    def is_here(self, session_id: str, tenant: str) -> bool:
        return session_id in self.here and tenant == "acme"

    async def count_connections(self, own: int) -> int:
        self.asked.append("count")
        return self.total

    def known_connections(self, own: int) -> int:
        return self.total

    async def exchange_uses(
        self, own: Mapping[str, tuple[int, float]], day: int
    ) -> dict[str, tuple[int, float]] | None:
        return dict.fromkeys(own, (self.used_elsewhere, 0.0))

    async def session_runs(self, session_id: str, tenant: str) -> bool:
        self.asked.append("runs")
        return session_id in self.elsewhere and tenant == "acme"


def gate_of(
    around: Surroundings,
    *,
    workers: int = 2,
    est_wait_ms: int = 0,
    sessions_per_s: float = 0,
    max_connections: int = LIMITS.max_connections,
) -> ConnectionGate:
    update = {"admit_sessions_per_s_max": sessions_per_s, "max_connections": max_connections}
    limits = LIMITS.model_copy(update=update)
    admission = Admission(limits)
    load = replace(LOAD, workers=workers, est_wait_ms=est_wait_ms)
    admission.note_load(load, time.monotonic())
    idle = IdleConnections(total_max=3, per_address_max=2)
    redis_metadata = cast(RedisMetadata, around)
    return ConnectionGate(
        admission, redis_metadata, Activity(), around, idle, Quotas(redis_metadata)
    )


def gauge() -> float | None:
    return REGISTRY.get_sample_value("asr_gateway_connections")


async def test_admitted_connections_are_counted_until_they_leave() -> None:
    gate = gate_of(Surroundings())
    assert await gate.enter() is None
    assert (gate.connections, gauge()) == (1, 1)
    gate.leave()
    assert (gate.connections, gauge()) == (0, 0)


async def test_a_refused_connection_is_not_counted() -> None:
    gate = gate_of(Surroundings(total=LIMITS.max_connections + 1))
    refusal = await gate.enter()
    assert refusal is not None and refusal.code == "max_connections"
    assert gate.connections == 0
    gate.draining = True
    refusal = await gate.enter()
    assert refusal is not None and refusal.code == "draining"


async def test_refused_clients_are_asked_to_return_one_after_the_other() -> None:
    gate = gate_of(Surroundings(total=LIMITS.max_connections + 1))
    first = await gate.would_refuse()
    refusals = [await gate.enter() for _ in range(101)]
    assert first is not None and refusals[0] == first
    assert refusals[-1] is not None and refusals[-1].retry_after_s == first.retry_after_s + 2


async def test_idle_connections_refuse_new_clients_and_neither_files_nor_resumptions() -> None:
    gate = gate_of(Surroundings(here={"s"}))
    gate.note_idle("a", 2)
    refusal = await gate.enter(caller=Caller(address="a"))
    assert refusal is not None and refusal.code == "idle_connections"
    assert await gate.would_refuse(caller=Caller(address="a")) == refusal
    assert await gate.enter(caller=Caller(address="b")) is None
    assert await gate.enter("s", caller=Caller(address="a", tenant="acme")) is None
    assert await gate.enter(lane="bulk") is None
    assert REGISTRY.get_sample_value("asr_gateway_idle_connections") == 2


async def test_clients_with_too_many_idle_connections_take_no_place_in_the_rate_of_others() -> None:
    gate = gate_of(Surroundings(), sessions_per_s=1)
    gate.note_idle("a", 2)
    for _ in range(3):
        refusal = await gate.enter(caller=Caller(address="a"))
        assert refusal is not None and refusal.code == "idle_connections"
    assert await gate.enter(caller=Caller(address="b")) is None


async def test_a_file_is_admitted_where_a_live_session_is_refused() -> None:
    gate = gate_of(Surroundings(), est_wait_ms=60_000)
    gate.connections = 1
    refusal = await gate.enter()
    assert refusal is not None and refusal.code == "overloaded"
    assert await gate.enter(lane="bulk") is None


async def test_a_client_that_disconnects_during_admission_is_not_counted() -> None:
    asked = asyncio.Event()

    class Slow(Surroundings):
        async def count_connections(self, own: int) -> int:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError("not reached")

    gate = gate_of(Slow())
    admitting = asyncio.create_task(gate.enter())
    await asked.wait()
    assert gate.connections == 1
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    assert gate.connections == 0


ACME = Caller(tenant="acme")


async def test_a_resumed_session_here_is_admitted_without_workers() -> None:
    gate = gate_of(Surroundings(here={"s"}), workers=0)
    assert await gate.enter("s", caller=ACME) is None
    for other, caller in (("other", ACME), ("s", NOBODY)):
        refusal = await gate.enter(other, caller=caller)
        assert refusal is not None and refusal.code == "no_worker"


async def test_a_session_elsewhere_is_resumed_in_spite_of_a_backlog() -> None:
    around = Surroundings(elsewhere={"s"}, storage_backlog_full=True)
    gate = gate_of(around)
    assert await gate.enter("s", caller=ACME) is None
    for other, caller in (("other", ACME), ("s", NOBODY)):
        refusal = await gate.enter(other, caller=caller)
        assert refusal is not None and refusal.code == "storage_backlog"


async def test_redis_is_not_asked_if_the_load_refuses_a_new_session() -> None:
    around = Surroundings(storage_backlog_full=True)
    assert await gate_of(around).enter() is not None
    assert around.asked == []


@pytest.mark.parametrize(
    ("total", "known_s", "sessions_per_s", "asked"),
    [
        # Three gateways may have 2 × 3 × 10 more by now.
        (40, 1.0, 10, []),
        (41, 1.0, 10, ["count"]),
        (40, 1.1, 10, ["count"]),
        (1, float("inf"), 10, ["count"]),
        (1, 1.0, 0, ["count"]),
    ],
)
async def test_redis_is_asked_only_if_the_limit_of_connections_may_be_near(
    total: int, known_s: float, sessions_per_s: float, asked: list[str]
) -> None:
    around = Surroundings(total=total, known_s=known_s)
    gate = gate_of(around, sessions_per_s=sessions_per_s, max_connections=100)
    assert await gate.enter() is None
    assert around.asked == asked


async def test_would_refuse_counts_nothing() -> None:
    gate = gate_of(Surroundings(total=LIMITS.max_connections + 1))
    refusal = await gate.would_refuse()
    assert refusal is not None and refusal.code == "max_connections"
    assert await gate_of(Surroundings()).would_refuse() is None
    assert gate.connections == 0


def test_the_figures_that_decide_are_shown() -> None:
    gate = gate_of(Surroundings())
    gate.show(time.monotonic())
    needed = "asr_gateway_model_workers_needed", {"model": ""}
    assert REGISTRY.get_sample_value("asr_gateway_broker_up") == 1
    assert (REGISTRY.get_sample_value(*needed) or 0) > 0
    gate.show(time.monotonic() + 60)
    assert REGISTRY.get_sample_value("asr_gateway_broker_up") == 0
    assert REGISTRY.get_sample_value(*needed) is None


async def test_a_connection_is_admitted_by_its_model_when_that_is_known() -> None:
    zh = ServedModel(name="zh", model="p", workers=1, throughput_rtfx=9.0)
    en = ServedModel(name="en", model="w", workers=0)
    admission = Admission(LIMITS)
    admission.note_load(replace(LOAD, served=(en, zh)), time.monotonic())
    around = Surroundings()
    idle = IdleConnections(0, 0)
    redis_metadata = cast(RedisMetadata, around)
    gate = ConnectionGate(
        admission, redis_metadata, Activity(), around, idle, Quotas(redis_metadata)
    )
    assert (gate.model_of("zh"), gate.model_of(""), gate.model_of("fr")) == ("zh", None, None)
    refusal = await gate.enter(model="en")
    assert refusal is not None and (refusal.code, gate.connections) == ("no_worker", 0)
    assert await gate.enter(model=None) is None
    refusal = gate.enter_model("en")
    assert refusal is not None and refusal.code == "no_worker"
    assert gate.enter_model("zh") is None
    assert gate.connections == 1


def test_the_only_model_is_known_before_the_start() -> None:
    assert gate_of(Surroundings()).model_of("") == ""


TWO = Caller(tenant="acme", token_name="anna", limits=TokenLimits(sessions=2))


async def test_a_token_has_no_more_connections_than_it_may() -> None:
    around = Surroundings()
    gate = gate_of(around)
    assert await gate.enter(caller=TWO) is None
    around.used_elsewhere = 1
    refusal = await gate.enter(caller=TWO)
    assert refusal is not None
    assert (refusal.code, refusal.status) == ("too_many_sessions", 429)
    assert gate.connections == 1
    assert await gate.would_refuse(caller=TWO) == refusal
    assert await gate.enter() is None, "of another token, without limits"
    gate.leave(TWO)
    assert await gate.enter(caller=TWO) is None


async def test_a_client_that_resumes_needs_no_further_place_but_starts_no_other_session() -> None:
    gate = gate_of(Surroundings(here={"s"}, elsewhere={"t"}))
    assert await gate.enter(caller=TWO) is None
    assert await gate.enter(caller=TWO) is None
    for resumption in ("s", "t"):
        assert await gate.would_refuse(resumption, caller=TWO) is None
        assert await gate.enter(resumption, caller=TWO) is None
        refusal = gate.enter_session(TWO)
        assert refusal is not None and refusal.code == "too_many_sessions"
        gate.leave(TWO)
    assert gate.enter_session(TWO) is None
    refusal = await gate.enter("u", caller=TWO)
    assert refusal is not None and refusal.code == "too_many_sessions"
