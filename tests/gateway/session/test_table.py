"""Sessions at this gateway, and their release."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.session.resume import ResumePoint, token_hash
from gateway.session.table import SessionTable
from wire.messages import Claimed

TOKEN = "token"


class Session:
    session_id = "s"
    resume_token = TOKEN
    resumable = True
    tenant = "acme"

    def __init__(self, generation: int) -> None:
        self.resume_point = ResumePoint(generation=generation)


class Runner:
    """The part of a ``SessionRunner`` that the table uses."""

    def __init__(self, generation: int) -> None:
        self.session = Session(generation)
        self.gone = False

    def hand_over(self) -> None:
        self.gone = True


def table_of(runner: Runner) -> SessionTable:
    table = SessionTable(keep_s=10.0)
    table.running["s"] = cast(Any, runner)
    return table


@pytest.mark.parametrize(
    ("generation", "shown", "goes"),
    [(2, TOKEN, True), (1, TOKEN, False), (0, TOKEN, False), (2, "a stranger's", False)],
)
def test_a_claim_of_a_newer_generation_with_the_clients_token(
    generation: int, shown: str, goes: bool
) -> None:
    runner = Runner(1)
    table = table_of(runner)
    claimed = Claimed(session_id="s", generation=generation, resume_token_hash=token_hash(shown))
    assert table.hand_over(claimed) is goes
    assert runner.gone is goes
    assert (table.find("s") is None) is goes


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(("superseded", "goes"), [(0, False), (1, True), (2, True)])
def test_a_superseded_generation_ends_here(superseded: int, goes: bool, ended: bool) -> None:
    """A late refusal of an older generation does not end a session that has resumed here."""
    runner = Runner(1)
    table = table_of(runner)
    if ended:
        assert table.end(cast(Any, runner), 0.0)
    assert table.supersede("s", superseded) is goes
    assert runner.gone is goes
    assert (table.find("s") is None) is goes


def test_an_unknown_session_is_neither_superseded_nor_handed_over() -> None:
    table = SessionTable(keep_s=10.0)
    assert not table.supersede("s", 1)
    claimed = Claimed(session_id="s", generation=2, resume_token_hash=token_hash(TOKEN))
    assert not table.hand_over(claimed)


def test_a_client_finds_sessions_of_its_tenant_only() -> None:
    runner = Runner(0)
    table = table_of(runner)
    assert table.find_own("s", "acme") is cast(Any, runner)
    assert table.find_own("s", "default") is None
    assert table.find("s") is cast(Any, runner)
