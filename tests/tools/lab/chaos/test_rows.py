"""Rows: when they hold, and one on a real system."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tools.lab.chaos import oracle, rows
from tools.lab.chaos.faults import BY_NAME, FAULTS, LATER_S_MAX, REFERENCE, Fault
from tools.lab.chaos.rows import MOMENTS, Row, Rows, full_set, late, quick_set
from tools.lab.chaos.system import System
from tools.lab.harness import database
from tools.lab.loadtest.user import Outcome

QUIET = Fault("quiet", lambda _system: None, unnoticed=True)
SHORT = Fault("short", lambda _system: None, pause_s_max=6.0)


def row(**fields: Any) -> Row:
    return Row("some", "mid-job", 24, **fields)


def rows_of(system: object) -> Rows:
    return Rows(cast(System, system), 1, lambda _text: None)


def test_a_row_holds_only_if_it_ran_and_nothing_was_wrong() -> None:
    assert row().holds
    assert not row(problems=["x"]).holds
    assert not row(skipped="no root").holds


def test_promised_limits_on_time() -> None:
    assert late(SHORT, row(pause_s=6.0), None) == []
    assert late(SHORT, row(pause_s=6.1), None) == ["no text for 6.1 s, promised 6 s"]
    limit_ms = 1_500 + LATER_S_MAX * 1000
    assert late(QUIET, row(slowest_ms=limit_ms), 1_500) == []
    assert late(QUIET, row(slowest_ms=limit_ms + 1), 1_500) == [
        "the slowest text took 2501 ms, 1500 ms without"
    ]
    assert late(REFERENCE, row(pause_s=99.0, slowest_ms=99_000), None) == []


def test_without_a_reference_unnoticed_cannot_hold() -> None:
    assert late(QUIET, row(slowest_ms=1), None)


@pytest.mark.parametrize(
    ("tries", "names", "problems", "late_at_first"),
    [
        ([9.0, 0.0, 5.0], ["short", "none", "short"], [], ["no text for 9.0 s, promised 6 s"]),
        (
            [9.0, 0.0, 8.0],
            ["short", "none", "short"],
            ["no text for 8.0 s, promised 6 s"],
            ["no text for 9.0 s, promised 6 s"],
        ),
        ([5.0], ["short"], [], []),
    ],
    ids=["late once", "late twice", "in time"],
)
def test_a_row_that_was_only_late_runs_once_more(
    monkeypatch: pytest.MonkeyPatch,
    tries: list[float],
    names: list[str],
    problems: list[str],
    late_at_first: list[str],
) -> None:
    fault = dataclasses.replace(SHORT, unnoticed=True)
    tried: list[str] = []
    runner = rows_of(None)
    runner._reference_ms = 0.0

    def one_try(fault: Fault, moment: rows.Moment) -> Row:
        tried.append(fault.name)
        return Row(fault.name, moment, 24, pause_s=tries.pop(0))

    monkeypatch.setattr(runner, "_try", one_try)
    row = runner.run(fault, "mid-job")
    assert (tried, row.problems) == (names, problems)
    assert row.late_at_first == late_at_first


def test_a_row_with_a_wrong_word_does_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = row(pause_s=9.0, problems=["session s: no row"])
    tries = [wrong]
    runner = rows_of(None)
    monkeypatch.setattr(runner, "_try", lambda *_: tries.pop())
    assert runner.run(SHORT, "mid-job") is wrong
    assert wrong.problems == ["session s: no row", "no text for 9.0 s, promised 6 s"]


def test_a_fault_is_healed_even_if_its_injection_fails() -> None:
    done: list[str] = []

    def inject(_system: System) -> None:
        done.append("inject")
        raise RuntimeError("no worker is running")

    fault = Fault("f", inject, heal=lambda _system: done.append("heal"))
    with pytest.raises(RuntimeError):
        rows_of(None)._inject(fault)
    assert done == ["inject", "heal"]


def test_answers_are_checked_before_the_fault_is_healed() -> None:
    done: list[str] = []

    def check(_system: System) -> list[str]:
        done.append("check")
        return ["admitted"]

    fault = dataclasses.replace(QUIET, check=check, heal=lambda _system: done.append("heal"))
    assert rows_of(None)._inject(fault) == ["admitted"]
    assert done == ["check", "heal"]


def test_without_small_disks_a_row_is_skipped_with_the_reason() -> None:
    full = next(fault for fault in FAULTS if fault.small_disks)
    row = rows_of(SimpleNamespace(no_small_disks="permission denied")).run(full, "mid-job")
    assert row.skipped == "no small disks: permission denied"


def test_the_sets() -> None:
    assert {fault.name for fault, _ in full_set()} == {fault.name for fault in FAULTS}
    assert {moment for _, moment in full_set()} == set(MOMENTS)
    quick = quick_set()
    assert quick and all(not fault.full_only for fault, _ in quick)
    kinds = {fault.name.split()[0] for fault, _ in quick}
    assert {"worker", "broker", "gateway", "persistence", "PostgreSQL", "Redis"} <= kinds


def test_a_row_on_the_real_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is killed and every word arrives; a missing database row is then found."""
    for name, value in {"SESSIONS": 4, "SPEECH_S": 4.0, "MID_JOB_S": 2.0}.items():
        monkeypatch.setattr(rows, name, value)
    seen: list[Outcome] = []
    monkeypatch.setattr(oracle, "texts_wrong", _noting(seen, oracle.texts_wrong))
    with System(tmp_path) as system:
        first = {process.pid for process in system.living("asr_worker")}
        killed = rows_of(system).run(BY_NAME["worker kill"], "mid-job")
        assert killed.problems == []
        assert first - {process.pid for process in system.living("asr_worker")}
        ids = [outcome.session_id for outcome in seen]
        assert oracle.rows_wrong(seen, database.stored_sessions(system.database_url, ids)) == []
        with database.connect(system.database_url) as connection:
            connection.execute(
                "DELETE FROM asr_segments WHERE session_id = %s AND segment_index = 0", ids[:1]
            )
        stored = database.stored_sessions(system.database_url, ids)
        assert all(ids[0] in problem for problem in oracle.rows_wrong(seen, stored))
        assert oracle.rows_wrong(seen, stored)


def _noting(seen: list[Outcome], check: Callable[..., list[str]]) -> Callable[..., list[str]]:
    def noting(outcomes: list[Outcome], sessions: int) -> list[str]:
        seen.extend(outcomes)
        return check(outcomes, sessions)

    return noting
