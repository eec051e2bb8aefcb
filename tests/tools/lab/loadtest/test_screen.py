from __future__ import annotations

import io

from rich.console import Console

from tests.tools.lab.loadtest.test_report import results
from tools.lab.loadtest.driver import Progress
from tools.lab.loadtest.screen import Screen

PROGRESS = Progress(
    waiting=1, active=2, ended={"succeeded": 3}, recent_segment_ms=[800.0], recent_final_ms=[90.0]
)


def shown(*, terminal: bool) -> str:
    file = io.StringIO()
    with Screen(Console(file=file, force_terminal=terminal, width=120), "5 sessions") as screen:
        screen.show(1.0, PROGRESS, results().samples)
        screen.show(2.0, PROGRESS, results().samples)
    return file.getvalue()


def test_a_line_now_and_then_without_a_terminal() -> None:
    (line,) = shown(terminal=False).splitlines()
    assert "2 speaking, 1 waiting; 3 succeeded" in line and "p50 800" in line


def test_a_live_table_on_a_terminal() -> None:
    text = shown(terminal=True)
    assert "5 sessions" in text and "finish → final" in text and "gateway 0.10" in text
