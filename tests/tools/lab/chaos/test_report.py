from __future__ import annotations

import json
from pathlib import Path

from tools.lab.chaos import report
from tools.lab.chaos.rows import Row

HELD = Row(
    "worker kill",
    "mid-job",
    24,
    pause_s=5.2,
    slowest_ms=6_100,
    resumes=1,
    settled_s=0.4,
    late_at_first=["no text for 6.2 s"],
)
FAILED = Row("broker kill", "twice", 24, problems=["session s: no row"] * 12)
SKIPPED = Row("log disk full", "mid-job", 0, skipped="no small disks")
ROWS = [HELD, FAILED, SKIPPED]


def test_the_report_names_failures_and_skipped_rows(tmp_path: Path) -> None:
    path = report.write(tmp_path / "out", ROWS, "make chaos")
    text = path.read_text()
    assert "1 of 3 rows hold" in text and "1 skipped" in text
    assert "| worker kill | mid-job | yes | 5.2 | 6100 | 1 | 0.4 |" in text
    assert "| broker kill | twice | **no** | – | – | 0 | 0.0 |" in text
    assert "| log disk full | mid-job | skipped: no small disks |" in text
    assert "at the first try no text for 6.2 s" in text
    assert text.count("session s: no row") == report.PROBLEMS_SHOWN_MAX and "and 2 more" in text
    assert json.loads(path.with_suffix(".json").read_text())[0]["fault"] == "worker kill"


def test_rows_are_read_back_and_replaced_by_later_ones(tmp_path: Path) -> None:
    report.write(tmp_path, ROWS, "make chaos")
    again = Row("broker kill", "twice", 24)
    assert report.merged(report.read(tmp_path), [again]) == [HELD, again, SKIPPED]
    assert report.read(tmp_path / "nowhere") == []


def test_the_page_has_one_line_for_each_fault(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nstale\n{report.END}\nafter\n")
    idle = Row("worker kill", "idle", 24, resumes=2)
    report.write_docs(page, [HELD, idle, FAILED, SKIPPED])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "stale" not in text
    assert "2 of 4 rows hold" in text
    assert "| worker kill | mid-job (second try), idle | yes | 5.2 | 6.1 | 3 |" in text
    assert "| broker kill | **twice** | **no** | – | – | 0 |" in text
    assert "| log disk full | – | skipped: no small disks | – | – | 0 |" in text
