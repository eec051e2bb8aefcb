"""Usage of limited tokens at this gateway and at all: sessions, audio a day, requests a second."""

from __future__ import annotations

import pytest

from gateway.admission.token_uses import DAY_S, OwnUse, TokenUses
from gateway.storage.callers import NOBODY, Caller, TokenLimits

ANNA = Caller(
    token_name="anna", limits=TokenLimits(sessions=2, audio_s_per_day=10, requests_per_s=3)
)
NOON_S = 100 * DAY_S + DAY_S // 2


@pytest.fixture
def uses() -> TokenUses:
    return TokenUses()


def test_sessions_count_here_and_elsewhere(uses: TokenUses) -> None:
    uses.enter(ANNA)
    assert uses.sessions_refusal(ANNA, more=1) is None
    own = uses.own(ANNA, NOON_S)
    uses.note_elsewhere(own, {"anna": (1, 0.0)}, NOON_S)
    assert uses.sessions_refusal(ANNA, more=0) is None
    refusal = uses.sessions_refusal(ANNA, more=1)
    assert refusal is not None and (refusal.code, refusal.status) == ("too_many_sessions", 429)
    uses.note_redis_lost()
    assert uses.sessions_refusal(ANNA, more=1) is None


def test_audio_counts_until_midnight(uses: TokenUses) -> None:
    uses.note_audio(ANNA, 4.0, NOON_S)
    uses.note_elsewhere(uses.own(ANNA, NOON_S), {"anna": (0, 5.5)}, NOON_S)
    assert uses.audio_refusal(ANNA, NOON_S) is None
    uses.note_audio(ANNA, 0.5, NOON_S)
    refusal = uses.audio_refusal(ANNA, NOON_S)
    assert refusal is not None and (refusal.code, refusal.status) == ("audio_limit_reached", 429)
    assert refusal.retry_after_s == DAY_S // 2
    uses.note_redis_lost()
    assert uses.audio_refusal(ANNA, NOON_S) is not None, "what was sent stays sent"
    assert uses.audio_refusal(ANNA, 101 * DAY_S) is None


def test_requests_count_by_the_second(uses: TokenUses) -> None:
    counts = [uses.note_request(ANNA, NOON_S + step / 10) for step in range(12)]
    assert counts == [*range(1, 11), 1, 2]
    assert uses.requests_refusal(ANNA, 3) is None
    refusal = uses.requests_refusal(ANNA, 4)
    assert refusal is not None and (refusal.code, refusal.retry_after_s) == ("too_many_requests", 1)


def test_uses_that_changed_or_belong_to_tokens_in_use_are_published(uses: TokenUses) -> None:
    assert uses.changes(NOON_S) == {}
    uses.enter(ANNA)
    uses.note_audio(ANNA, 1.0, NOON_S)
    published = uses.changes(NOON_S)
    assert published == {"anna": OwnUse(sessions=1, audio_s=1.0)}
    uses.leave(ANNA)
    uses.note_elsewhere(published, {"anna": (0, 0.0)}, NOON_S)
    published = uses.changes(NOON_S)
    assert published["anna"].sessions == 0, "the others do not know yet"
    uses.note_elsewhere(published, {"anna": (0, 0.0)}, NOON_S)
    assert uses.changes(NOON_S) == {}


def test_without_limits_nothing_is_counted(uses: TokenUses) -> None:
    uses.enter(NOBODY)
    uses.note_audio(NOBODY, 1e9, NOON_S)
    assert uses.changes(NOON_S) == {}
    assert uses.audio_refusal(NOBODY, NOON_S) is None
    assert uses.sessions_refusal(NOBODY, more=1) is None
