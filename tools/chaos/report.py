"""The report: one line for each fault and moment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from tools.chaos.rows import Row

PROBLEMS_SHOWN_MAX = 10
BEGIN = "<!-- results: written by python -m tools.chaos --docs -->"
END = "<!-- end of results -->"


def table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| fault | moment | holds | silence, s | slowest text, ms | resumed | at rest, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        silence, slowest = f"{row.pause_s:.1f}", f"{row.slowest_ms:.0f}"
        if row.moment != "mid-job":
            silence = slowest = "–"
        lines.append(
            f"| {row.fault} | {row.moment} | {'yes' if row.holds else '**no**'} | {silence} "
            f"| {slowest} | {row.resumes} | {row.settled_s:.1f} |"
        )
    return lines


def markdown(rows: Sequence[Row], command: str) -> str:
    held = sum(row.holds for row in rows)
    sessions = sum(row.sessions for row in rows)
    lines = [
        "# Chaos",
        "",
        f"`{command}`: {held} of {len(rows)} rows hold, {sessions} sessions checked word by word.",
        "",
        *table(rows),
    ]
    for row in rows:
        if not row.holds:
            lines += ["", f"## {row.fault}, {row.moment}", ""]
            lines += [f"* {problem}" for problem in row.problems[:PROBLEMS_SHOWN_MAX]]
            if len(row.problems) > PROBLEMS_SHOWN_MAX:
                lines.append(f"* and {len(row.problems) - PROBLEMS_SHOWN_MAX} more")
    return "\n".join(lines) + "\n"


def write(directory: Path, rows: Sequence[Row], command: str) -> Path:
    """``chaos_report.md`` and ``.json``; returns the path of the first."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "chaos_report.md"
    path.write_text(markdown(rows, command), encoding="utf-8")
    path.with_suffix(".json").write_text(
        json.dumps([dataclasses.asdict(row) for row in rows], ensure_ascii=False, indent=1) + "\n",
        encoding="utf-8",
    )
    return path


def write_docs(page: Path, rows: Sequence[Row], command: str) -> None:
    """Replace the results in the documentation by ``rows``."""
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    assert found and ended, f"{page} has no place for results"
    held = sum(row.holds for row in rows)
    body = "\n".join([f"`{command}`: {held} of {len(rows)} rows hold.", "", *table(rows)])
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")
