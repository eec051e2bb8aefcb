"""Options of the command."""

from __future__ import annotations

import pytest
import typer

from tools.lab.chaos import __main__ as command
from tools.lab.chaos.faults import REFERENCE
from tools.lab.chaos.rows import MOMENTS, Row, full_set, quick_set


def test_a_plan_by_its_options() -> None:
    assert command._plan(False, None, None, None)[1:] == quick_set()
    assert command._plan(True, None, None, None)[1:] == full_set()
    only = command._plan(False, "broker kill", None, None)
    assert [moment for fault, moment in only] == list(MOMENTS)
    assert command._plan(False, command.POISON_NAME, None, None) == []


def test_a_fault_that_must_go_unnoticed_is_preceded_by_the_reference() -> None:
    plan = command._plan(False, "Redis kill", "mid-job", None)
    assert [fault.name for fault, _ in plan] == [REFERENCE.name, "Redis kill"]


@pytest.mark.parametrize(
    ("only", "moment", "share"),
    [("no such fault", None, None), (None, "never", None), (None, None, "3/2")],
)
def test_wrong_options_are_refused(only: str, moment: str, share: str) -> None:
    with pytest.raises(typer.BadParameter):
        command._plan(False, only, moment, share)


def test_the_verdict_needs_a_row_that_holds() -> None:
    held, failed = Row("f", "idle", 1), Row("f", "idle", 1, problems=["p"])
    skipped = Row("f", "idle", 0, skipped="no root")
    assert command._verdict([held, skipped])
    assert not command._verdict([held, failed])
    assert not command._verdict([skipped]) and not command._verdict([])
