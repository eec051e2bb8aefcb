"""Every row runs once in one share, and a missing share is a problem."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.lab.chaos import shares

PRETENDED = """\
import sys
from pathlib import Path

from tools.lab.chaos import report
from tools.lab.chaos.rows import Row

status, rows, _, share, _, out = sys.argv[1:]
print("1 of 1: some, mid-job", file=sys.stderr)
if rows == "rows":
    report.write(Path(out), [Row(f"fault {share}", "mid-job", 24)], "pretended")
sys.exit(int(status))
"""


def test_every_row_is_in_one_share() -> None:
    plan = list(range(10))
    parts = [shares.of_plan(plan, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(row for part in parts for row in part) == plan
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert shares.of_plan(plan, None) == plan


@pytest.mark.parametrize("share", ["0/2", "3/2", "1", "a/b"])
def test_a_malformed_share_is_refused(share: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        shares.of_plan([1], share)


def test_the_rows_of_all_shares_are_returned(tmp_path: Path) -> None:
    printed: list[str] = []
    rows, problems = shares.run(
        [sys.executable, "-c", PRETENDED, "1", "rows"], 2, tmp_path, printed.append
    )
    assert [row.fault for row in rows] == ["fault 1/2", "fault 2/2"] and not problems
    assert sorted(printed) == ["[1] 1 of 1: some, mid-job", "[2] 1 of 1: some, mid-job"]


@pytest.mark.parametrize(("status", "left"), [("2", "rows"), ("0", "nothing"), ("-9", "nothing")])
def test_a_share_that_ends_early_is_a_problem(tmp_path: Path, status: str, left: str) -> None:
    _, problems = shares.run(
        [sys.executable, "-c", PRETENDED, status, left], 2, tmp_path, lambda _text: None
    )
    assert len(problems) == 2
