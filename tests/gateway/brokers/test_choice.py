"""Which broker a session belongs to, and when it moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from gateway.brokers.choice import BrokerChoice
from gateway.brokers.contact import SILENCE_S
from tests.broker.driving import job
from wire.messages import Cancel, Claim, Job, Record

STEP_S = 0.25
SESSIONS = [f"session-{number}" for number in range(300)]


class Run:
    """Brokers that report four times a second, as long as they are among ``alive``."""

    def __init__(self, *brokers: str) -> None:
        self.choice = BrokerChoice()
        self.now_s = 0.0
        for broker in brokers:
            self.choice.add(broker)

    def on(self, seconds: float, alive: Iterable[str], idle: Iterable[str] = ()) -> list[str]:
        """Let time pass. Return the sessions that have moved."""
        moved = []
        alive, idle = list(alive), list(idle)
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            for broker in alive:
                self.choice.heard(broker, 0 if broker in idle else 2, self.now_s)
            moved += self.choice.moves(self.now_s)
        return moved

    def settle(self) -> dict[str, str | None]:
        return {session: self.choice.settle(session) for session in SESSIONS}

    def homes(self) -> dict[str, str | None]:
        return {session: self.choice.broker_of(session) for session in SESSIONS}


def test_without_a_broker_there_is_no_choice() -> None:
    assert Run().choice.settle("a") is None
    assert Run("a").choice.settle("a") == "a"


def test_sessions_spread_evenly_and_every_gateway_chooses_alike() -> None:
    one, other = Run("a", "b", "c"), Run("c", "a", "b")
    one.on(1, "abc")
    other.on(3, "cab")
    assert one.settle() == other.settle()
    assert min(Counter(one.homes().values()).values()) > len(SESSIONS) / 5


def test_only_the_sessions_of_a_lost_broker_move_and_to_all_others() -> None:
    run = Run("a", "b", "c")
    run.on(5, "abc")
    before = run.settle()
    assert run.on(SILENCE_S - STEP_S, "ab") == []
    moved = run.on(1, "ab")
    assert set(moved) == {session for session, home in before.items() if home == "c"}
    after = run.homes()
    assert {after[session] for session in moved} == {"a", "b"}
    assert all(after[one] == home for one, home in before.items() if one not in moved)


def test_a_broker_that_joins_or_returns_takes_new_sessions_only() -> None:
    run = Run("a", "b")
    run.on(5, "ab")
    run.settle()
    run.on(5, "a")
    run.choice.add("c")
    assert run.on(10, "abc") == []
    assert set(run.homes().values()) == {"a"}
    new = {run.choice.settle(f"new-{number}") for number in range(100)}
    assert new == {"a", "b", "c"}


def test_the_only_broker_keeps_its_sessions() -> None:
    run = Run("a")
    run.on(5, "a")
    run.settle()
    assert run.on(20, "") == run.on(5, "a", idle="a") == run.on(5, "a") == []
    assert set(run.homes().values()) == {"a"}


def test_after_an_outage_of_all_none_moves_because_one_is_back_first() -> None:
    run = Run("a", "b")
    run.on(5, "ab")
    before = run.settle()
    assert run.on(10, "") == run.on(1, "a") == run.on(5, "ab") == []
    assert run.homes() == before
    run.on(10, "")
    assert run.on(5, "a"), "the other one is not back"


def test_a_broker_without_workers_is_left_for_one_that_has_some() -> None:
    run = Run("a", "b")
    run.on(5, "ab")
    before = run.settle()
    assert run.on(10, "ab", idle="ab") == run.on(1, "ab", idle="b") == []
    assert run.on(5, "ab") == [] and run.homes() == before
    assert set(run.on(5, "ab", idle="b")) == {one for one, home in before.items() if home == "b"}


def test_the_sessions_of_a_removed_broker_move_once_another_serves() -> None:
    run = Run("a", "b")
    run.on(5, "ab")
    before = run.settle()
    run.choice.remove("b")
    moved = run.on(1, "a")
    assert set(moved) == {session for session, home in before.items() if home == "b"}
    run.choice.remove("a")
    run.choice.add("c")
    assert run.on(1, "") == []
    assert set(run.on(4, "c")) == set(SESSIONS)


def test_ended_sessions_are_forgotten() -> None:
    run = Run("a", "b")
    run.on(5, "ab")
    run.settle()
    for session in SESSIONS:
        run.choice.forget(session)
    assert run.on(5, "a") == run.choice.sessions_of("a") == run.choice.sessions_of("b") == []


@given(st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.integers(1, 20)), max_size=30))
def test_a_session_leaves_no_broker_that_serves(steps: list[tuple[set[str], int]]) -> None:
    run = Run("a", "b", "c")
    heard_s = dict.fromkeys("abc", float("-inf"))
    before = run.settle()
    for alive, times in steps:
        for _ in range(times):
            moved = run.on(STEP_S, sorted(alive))
            heard_s.update(dict.fromkeys(alive, run.now_s))
            for session in moved:
                assert run.now_s - heard_s[before[session] or ""] >= SILENCE_S
                assert run.now_s - heard_s[run.choice.broker_of(session) or ""] < SILENCE_S
            before = run.homes()


def test_only_jobs_and_first_records_go_to_one_broker() -> None:
    run = Run("a", "b", "c")
    run.on(5, "ab")
    own = run.choice.broker_of("s")
    assert own is not None

    def to(message: Job | Cancel | Record | Claim, *, again: bool = False) -> list[str]:
        return run.choice.brokers_for(message, run.now_s, again=again)

    record = Record(session_id="s", record_seq=0, body={})
    assert to(record) == to(job(0, session_id="s"), again=True) == [own]
    claim = Claim(session_id="s", generation=1, resume_token_hash="")
    for all_of in (to(record, again=True), to(claim), to(Cancel(session_id="s"))):
        assert all_of[0] == own and sorted(all_of) == ["a", "b"]
    run.choice.remove(own)
    (other,) = {"a", "b"} - {own}
    assert to(record) == []
    assert to(record, again=True) == [other]


def test_messages_go_to_a_silent_broker_if_there_is_no_other() -> None:
    run = Run("a")
    run.on(5, "a")
    run.on(5, "")
    record = Record(session_id="s", record_seq=0, body={})
    assert run.choice.brokers_for(record, run.now_s, again=True) == ["a"]
