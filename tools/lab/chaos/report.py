"""The report: one line for each fault and moment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from tools.lab.chaos.rows import Row

NAME = Path("chaos_report.md")
PROBLEMS_SHOWN_MAX = 10
BEGIN = "<!-- results: written by python -m tools.lab.chaos --docs -->"
END = "<!-- end of results -->"


def merged(earlier: Sequence[Row], later: Sequence[Row]) -> list[Row]:
    """Rows of both; of the same fault and moment, the later one."""
    latest = {(row.fault, row.moment): row for row in [*earlier, *later]}
    return list(latest.values())


def read(directory: Path) -> list[Row]:
    """The rows that ``write`` wrote there; none if there is no report."""
    path = directory / NAME.with_suffix(".json")
    if not path.exists():
        return []
    return [Row(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]


def table(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| fault | moment | holds | silence, s | slowest text, ms | resumed | at rest, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row.skipped:
            lines.append(f"| {row.fault} | {row.moment} | skipped: {row.skipped} | – | – | – | – |")
            continue
        silence, slowest = f"{row.pause_s:.1f}", f"{row.slowest_ms:.0f}"
        if row.moment != "mid-job":
            silence = slowest = "–"
        lines.append(
            f"| {row.fault} | {row.moment} | {'yes' if row.holds else '**no**'} | {silence} "
            f"| {slowest} | {row.resumes} | {row.settled_s:.1f} |"
        )
    return lines


def markdown(rows: Sequence[Row], command: str) -> str:
    lines = [
        "# Chaos",
        "",
        f"`{command}`: {summary(rows)}",
        "",
        *table(rows),
    ]
    for row in rows:
        if row.problems or row.late_at_first:
            lines += ["", f"## {row.fault}, {row.moment}", ""]
            lines += [f"* at the first try {late}" for late in row.late_at_first]
            lines += [f"* {problem}" for problem in row.problems[:PROBLEMS_SHOWN_MAX]]
            if len(row.problems) > PROBLEMS_SHOWN_MAX:
                lines.append(f"* and {len(row.problems) - PROBLEMS_SHOWN_MAX} more")
    return "\n".join(lines) + "\n"


def summary(rows: Sequence[Row]) -> str:
    held = sum(row.holds for row in rows)
    skipped = sum(bool(row.skipped) for row in rows)
    sessions = sum(row.sessions for row in rows)
    return (
        f"{held} of {len(rows)} rows hold, {skipped} skipped, "
        f"{sessions} sessions checked word by word."
    )


def write(directory: Path, rows: Sequence[Row], command: str) -> Path:
    """Write ``chaos_report.md`` and ``.json``; return the path of the first."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    path.write_text(markdown(rows, command), encoding="utf-8")
    path.with_suffix(".json").write_text(
        json.dumps([dataclasses.asdict(row) for row in rows], ensure_ascii=False, indent=1) + "\n",
        encoding="utf-8",
    )
    return path


def write_docs(page: Path, rows: Sequence[Row]) -> None:
    """Replace the results in the documentation page by ``rows``, one line for each fault."""
    text = page.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    assert found and ended, f"{page} has no results section"
    lines = [
        f"`python -m tools.lab.chaos`: {summary(rows)}",
        "",
        "| fault | moments | hold | silence, s | slowest text, s | resumed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    faults: dict[str, list[Row]] = {}
    for row in rows:
        faults.setdefault(row.fault, []).append(row)
    lines += [_fault_line(fault, tried) for fault, tried in faults.items()]
    body = "\n".join(lines)
    page.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def _fault_line(fault: str, rows: Sequence[Row]) -> str:
    tried = [row for row in rows if not row.skipped]
    moments = ", ".join(_moment(row) for row in tried) or "–"
    verdict = "yes" if all(row.holds for row in tried) else "**no**"
    if not tried:
        verdict = f"skipped: {rows[0].skipped}"
    silence = slowest = "–"
    for row in tried:
        if row.moment == "mid-job" and row.slowest_ms:
            silence, slowest = f"{row.pause_s:.1f}", f"{row.slowest_ms / 1000:.1f}"
    resumed = sum(row.resumes for row in tried)
    return f"| {fault} | {moments} | {verdict} | {silence} | {slowest} | {resumed} |"


def _moment(row: Row) -> str:
    tries = " (second try)" if row.late_at_first else ""
    return row.moment + tries if row.holds else f"**{row.moment}{tries}**"
