"""Takeover against a scripted database and a bus that stores a claim, or does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.session import takeover as t
from gateway.session.resume import NOT_RESUMABLE, UNAVAILABLE, ResumePoint, token_hash
from persistence.reads import SessionReader, StoreUnavailable
from wire.messages import Claim, Message, Record, StoredKey
from wire.records import DEFAULT_TENANT, RESUMED_RECORD_SEQ

TOKEN = "token"


class Database:
    """Answers reads with each of ``states`` in turn, then with the last one again."""

    def __init__(self, *states: dict[str, Any] | Exception | None, taken: bool = False) -> None:
        self._states = list(states)
        self.taken = taken

    async def resume_state(self, _session_id: str, _tenant: str) -> dict[str, Any] | None:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, Exception):
            raise state
        return state

    async def owner_state(self, session_id: str, tenant: str) -> dict[str, Any] | None:
        state = await self.resume_state(session_id, tenant)
        return state and {name: value for name, value in state.items() if name != "segments"}

    async def exists(self, _session_id: str) -> bool:
        return self.taken


def stored(**changes: Any) -> dict[str, Any]:
    return {
        "session_id": "s",
        "status": "active",
        "started": True,
        "generation": 0,
        "gateway_id": "g1",
        "resume_token_hash": token_hash(TOKEN),
        "text": None,
        "duration_ms": None,
        "chunk_count": None,
        "model": "",
        "created_at_ms": 1_000,
        "has_all_segments": True,
        "segments": [],
        "speakers": {},
        "centroids": (),
        **changes,
    }


class Bus:
    """Confirms each claim's record at the ``confirm_at``-th try; None: never."""

    def __init__(self, confirm_at: int | None = 1) -> None:
        self.sent: list[Message] = []
        self.again: list[Message] = []
        """Those of them that were not confirmed in time."""
        self.note_stored: Callable[[list[StoredKey]], None] = lambda _keys: None
        self._confirm_at = confirm_at

    def send(self, message: Message, /, *, again: bool = False) -> bool:
        self.sent.append(message)
        if again:
            self.again.append(message)
        tries = sum(isinstance(each, Record) for each in self.sent)
        if isinstance(message, Record) and tries == self._confirm_at:
            self.note_stored([message.key])
        return True


def takeover(database: Database, bus: Bus) -> t.Takeover:
    made = t.Takeover("g2", cast(SessionReader, database), bus.send)
    bus.note_stored = made.note_stored
    return made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t, "CLAIM_RESEND_S", 0.01)


async def test_a_session_of_another_gateway_is_claimed_and_read_again() -> None:
    bus = Bus()
    database = Database(stored(), stored(generation=1, gateway_id="g2"))
    point = await takeover(database, bus).take("s", TOKEN, DEFAULT_TENANT)
    assert point == ResumePoint(generation=1, resumed=True, started_at_ms=1_000)
    claim, record = bus.sent
    assert isinstance(claim, Claim) and isinstance(record, Record)
    assert (claim.generation, record.generation) == (1, 1)
    assert record.record_seq == RESUMED_RECORD_SEQ
    assert claim.resume_token_hash == token_hash(TOKEN)


async def test_a_claim_is_resent_until_it_is_stored() -> None:
    bus = Bus(confirm_at=3)
    database = Database(stored(), stored(generation=1, gateway_id="g2"))
    point = await takeover(database, bus).take("s", TOKEN, DEFAULT_TENANT)
    assert isinstance(point, ResumePoint)
    assert len(bus.sent) == 6
    assert bus.again == bus.sent[3::2]


async def test_an_unknown_session_starts_from_the_beginning() -> None:
    claimed = stored(generation=1, gateway_id="g2", started=False, resume_token_hash="")
    assert await takeover(Database(None, claimed), Bus()).take(
        "s", TOKEN, DEFAULT_TENANT
    ) == ResumePoint(generation=1)


@pytest.mark.parametrize(
    "state", [stored(status="deleted"), stored(resume_token_hash=token_hash("another"))]
)
async def test_deleted_sessions_and_wrong_tokens_have_the_same_refusal(
    state: dict[str, Any],
) -> None:
    bus = Bus()
    assert await takeover(Database(state), bus).take("s", TOKEN, DEFAULT_TENANT) is NOT_RESUMABLE
    assert bus.sent == []


async def test_a_complete_session_needs_no_claim() -> None:
    bus = Bus()
    complete = stored(status="completed", generation=3, chunk_count=7, duration_ms=900)
    point = await takeover(Database(complete), bus).take("s", TOKEN, DEFAULT_TENANT)
    assert isinstance(point, ResumePoint) and point.final is not None
    assert (point.generation, point.final.chunk_count) == (3, 7)
    assert bus.sent == []


@pytest.mark.parametrize(
    "after_the_claim",
    [
        stored(generation=1, gateway_id="g3"),
        stored(generation=2, gateway_id="g2"),
        None,
        StoreUnavailable(),
    ],
)
async def test_a_lost_race_or_a_lost_database_is_unavailable(
    after_the_claim: dict[str, Any] | Exception | None,
) -> None:
    database = Database(stored(), after_the_claim)
    assert await takeover(database, Bus()).take("s", TOKEN, DEFAULT_TENANT) is UNAVAILABLE


async def test_a_session_deleted_during_the_claim_is_refused() -> None:
    database = Database(stored(), stored(status="deleted"))
    assert await takeover(database, Bus()).take("s", TOKEN, DEFAULT_TENANT) is NOT_RESUMABLE


async def test_a_claim_that_is_not_stored_in_time_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(t, "TAKEOVER_S", 0.05)
    made = takeover(Database(stored()), Bus(confirm_at=None))
    assert await made.take("s", TOKEN, DEFAULT_TENANT) is UNAVAILABLE
    assert not made._claims


async def test_only_the_claims_own_generation_confirms_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t, "TAKEOVER_S", 0.05)
    bus = Bus(confirm_at=None)
    made = takeover(Database(stored()), bus)
    taking = asyncio.create_task(made.take("s", TOKEN, DEFAULT_TENANT))
    while not bus.sent:
        await asyncio.sleep(0)
    for generation, kind in ((2, "record"), (1, "result")):
        made.note_stored(
            [
                StoredKey(
                    session_id="s",
                    kind=kind,  # type: ignore[arg-type]
                    seq=RESUMED_RECORD_SEQ,
                    generation=generation,
                )
            ]
        )
    assert await taking is UNAVAILABLE


async def test_a_second_request_for_the_same_session_is_unavailable() -> None:
    bus = Bus(confirm_at=None)
    made = takeover(Database(stored(), stored(generation=1, gateway_id="g2")), bus)
    first = asyncio.create_task(made.take("s", TOKEN, DEFAULT_TENANT))
    while not bus.sent:
        await asyncio.sleep(0)
    assert await made.take("s", TOKEN, DEFAULT_TENANT) is UNAVAILABLE
    (record,) = (message for message in bus.sent if isinstance(message, Record))
    made.note_stored([record.key])
    assert isinstance(await first, ResumePoint)


async def test_a_session_of_another_tenant_is_refused_without_a_claim() -> None:
    bus = Bus()
    database = Database(None, taken=True)
    assert await takeover(database, bus).take("s", TOKEN, "acme") is NOT_RESUMABLE
    assert bus.sent == []


async def test_a_session_that_is_stored_between_two_reads_is_no_other_tenants() -> None:
    claimed = stored(generation=1, gateway_id="g2")
    database = Database(None, stored(), claimed, taken=True)
    point = await takeover(database, Bus()).take("s", TOKEN, DEFAULT_TENANT)
    assert point == ResumePoint(generation=1, resumed=True, started_at_ms=1_000)


class SlowDatabase(Database):
    """Reads take a turn of the event loop, and are counted."""

    def __init__(self) -> None:
        super().__init__(stored(status="completed", chunk_count=1, duration_ms=900))
        self.reading = self.reading_max = 0

    async def owner_state(self, _session_id: str, _tenant: str) -> dict[str, Any] | None:
        self.reading += 1
        self.reading_max = max(self.reading, self.reading_max)
        await asyncio.sleep(0.001)
        self.reading -= 1
        return await self.resume_state("", "")


async def test_the_sessions_of_a_lost_gateway_are_taken_over_one_after_the_other() -> None:
    database = SlowDatabase()
    made = takeover(database, Bus())
    taken = await asyncio.gather(
        *(made.take(f"s{number}", TOKEN, DEFAULT_TENANT) for number in range(100))
    )
    assert all(isinstance(point, ResumePoint) for point in taken)
    assert database.reading_max == t.TAKEOVERS_MAX


async def test_a_takeover_that_waits_too_long_for_others_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(t, "TAKEOVERS_MAX", 1)
    monkeypatch.setattr(t, "QUEUE_S_MAX", 0.02)
    monkeypatch.setattr(t, "TAKEOVER_S", 60.0)
    bus = Bus(confirm_at=None)
    made = takeover(Database(stored(), stored(generation=1, gateway_id="g2")), bus)
    first = asyncio.create_task(made.take("s", TOKEN, DEFAULT_TENANT))
    while not bus.sent:
        await asyncio.sleep(0)
    assert await made.take("other", TOKEN, DEFAULT_TENANT) is UNAVAILABLE
    record = next(message for message in bus.sent if isinstance(message, Record))
    made.note_stored([record.key])
    assert isinstance(await first, ResumePoint)
    complete = takeover(Database(stored(status="completed", chunk_count=1)), Bus())
    assert isinstance(await complete.take("third", TOKEN, DEFAULT_TENANT), ResumePoint)
