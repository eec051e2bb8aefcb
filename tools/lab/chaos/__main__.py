"""``python -m tools.lab.chaos``: inject faults into real processes under verified load.

Exit codes: 0 every row holds; 1 one does not; 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tools.lab.chaos import random_kills, report, shares
from tools.lab.chaos.faults import BY_NAME, REFERENCE, Fault
from tools.lab.chaos.oracle import texts_wrong
from tools.lab.chaos.poison import poisoned_session
from tools.lab.chaos.rows import MOMENTS, SESSIONS, SPEECH_S, Moment, Row, Rows, full_set, quick_set
from tools.lab.chaos.system import System
from tools.lab.loadtest.load import Load

POISON_NAME = "poison utterance"
LOAD_END_S = 90.0

console = Console(stderr=True, highlight=False)

Full = Annotated[bool, typer.Option("--full", help="Run every fault at every moment.")]
Only = Annotated[str | None, typer.Option(help="Run one fault only; --list shows the names.")]
MomentOption = Annotated[
    str | None, typer.Option(help=f"Run one moment only: {', '.join(MOMENTS)}.")
]
List = Annotated[bool, typer.Option("--list", help="List the faults and exit.")]
Random = Annotated[int, typer.Option(help="Instead, kill this many random processes with SIGKILL.")]
Minutes = Annotated[float, typer.Option(min=0.1, help="Duration of --random.")]
Sessions = Annotated[int, typer.Option(min=1, help="Concurrent sessions of --random.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the texts and of --random.")]
Out = Annotated[Path, typer.Option(help="Directory for the report.")]
Docs = Annotated[
    bool, typer.Option("--docs", help="Also write the results to docs/reliability.md.")
]
Add = Annotated[
    bool, typer.Option("--add", help="Keep the rows of an earlier report that are not run again.")
]
Jobs = Annotated[
    int, typer.Option(min=1, help="Divide the rows among this many systems side by side.")
]
Share = Annotated[str | None, typer.Option(hidden=True)]
Keep = Annotated[bool, typer.Option("--keep", help="Keep the directory with the logs.")]


def main(
    full: Full = False,
    only: Only = None,
    moment: MomentOption = None,
    list_faults: List = False,
    random: Random = 0,
    minutes: Minutes = 20.0,
    sessions: Sessions = 100,
    seed: Seed = 1,
    out: Out = Path("bench-results"),
    docs: Docs = False,
    add: Add = False,
    jobs: Jobs = 1,
    share: Share = None,
    keep: Keep = False,
) -> None:
    """Inject faults into a system, and check every word of every session."""
    if list_faults:
        for name in [*BY_NAME, POISON_NAME]:
            print(name)
        return
    plan = _plan(full, only, moment, share)
    jobs = min(jobs, sum(fault is not REFERENCE for fault, _ in plan))
    if jobs > 1 and not random:
        raise typer.Exit(0 if _side_by_side(jobs, out, docs, add) else 1)
    directory = Path(tempfile.mkdtemp(prefix="asr-chaos-"))
    with_poison = only in (None, POISON_NAME) and (share or "1/1").startswith("1/")
    try:
        if random:
            with _system(directory, keep) as system:
                right = _random(system, random, minutes, sessions, seed, out)
        else:
            tried = []
            for brokers in (1, 2):
                part = [(fault, at) for fault, at in plan if fault.brokers == brokers]
                poison = with_poison and brokers == 1
                if not part and not poison:
                    continue
                disks = any(fault.small_disks for fault, _ in part)
                own = directory / str(brokers)
                with _system(own, keep, small_disks=disks, brokers=brokers) as system:
                    tried += _rows(system, part, poison, seed)
            right = _verdict(tried)
            _report([*report.read(out), *tried] if add else tried, out, docs)
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    raise typer.Exit(0 if right else 1)


@contextlib.contextmanager
def _system(directory: Path, keep: bool, **options: Any) -> Iterator[System]:
    """A system of its own; ``options`` are those of ``System``."""
    system = System(directory, **options)
    try:
        with system:
            yield system
    finally:
        if keep:
            # The disk they are on may end with this process.
            shutil.copytree(system.logs, directory / "kept")
            console.print(f"logs: {directory / 'kept'}")


def _side_by_side(jobs: int, out: Path, docs: bool, add: bool) -> bool:
    """Whether every row holds."""
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--docs", "--add")]
    with tempfile.TemporaryDirectory(prefix="asr-chaos-") as directory:
        rows, problems = shares.run(
            [sys.executable, "-m", "tools.lab.chaos", *arguments, "--jobs", "1"],
            jobs,
            Path(directory),
            lambda text: console.print(text, markup=False, soft_wrap=True),
        )
    order = [REFERENCE.name, *BY_NAME, POISON_NAME]
    rows.sort(key=lambda row: (order.index(row.fault), MOMENTS.index(row.moment)))
    _report([*report.read(out), *rows] if add else rows, out, docs)
    for problem in problems:
        console.print(problem, style="red", markup=False)
    return _verdict(rows) and not problems


def _plan(
    full: bool, only: str | None, moment: str | None, share: str | None
) -> list[tuple[Fault, Moment]]:
    if only == POISON_NAME:
        return []
    if only is not None and only not in BY_NAME:
        raise typer.BadParameter(f"no fault {only!r}; --list shows them")
    if moment is not None and moment not in MOMENTS:
        raise typer.BadParameter(f"no moment {moment!r}; one of {', '.join(MOMENTS)}")
    plan = full_set() if full or only or moment else quick_set()
    chosen = [
        (fault, at) for fault, at in plan if only in (None, fault.name) and moment in (None, at)
    ]
    try:
        chosen = shares.of_plan(chosen, share)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if any(fault.unnoticed for fault, _ in chosen):
        chosen.insert(0, (REFERENCE, "mid-job"))
    return chosen


def _rows(
    system: System, plan: Sequence[tuple[Fault, Moment]], with_poison: bool, seed: int
) -> list[Row]:
    rows: list[Row] = []
    runner = Rows(system, seed, lambda text: console.print(f"[dim]{text}[/]"))
    for number, (fault, moment) in enumerate(plan, 1):
        console.print(f"{number} of {len(plan) + with_poison}: {fault.name}, {moment}")
        rows.append(runner.run(fault, moment))
        _show(rows[-1])
    if with_poison:
        console.print(f"{POISON_NAME}, mid-job")
        rows.append(_poison_row(system, seed))
        _show(rows[-1])
    return rows


def _verdict(rows: Sequence[Row]) -> bool:
    return any(row.holds for row in rows) and all(row.holds or row.skipped for row in rows)


def _report(rows: Sequence[Row], out: Path, docs: bool) -> None:
    rows = report.merged((), rows)
    command = "python -m tools.lab.chaos " + shlex.join(sys.argv[1:])
    console.print(f"report: {report.write(out, rows, command.strip())}")
    for row in rows:
        if row.problems:
            console.print(f"{row.fault}, {row.moment}, does not hold:", style="red", markup=False)
            _show(row)
    console.print(report.summary(rows))
    if docs:
        report.write_docs(Path("docs/reliability.md"), rows)


def _show(row: Row) -> None:
    if row.skipped:
        console.print(f"  skipped: {row.skipped}", style="yellow", markup=False)
        return
    if row.holds:
        silence = f", longest silence {row.pause_s:.1f} s" if row.moment == "mid-job" else ""
        console.print(f"  [green]holds[/]{silence}, {row.resumes} resumed")
        return
    for problem in row.problems[: report.PROBLEMS_SHOWN_MAX]:
        console.print(f"  {problem}", style="red", markup=False, soft_wrap=True)


def _poison_row(system: System, seed: int) -> Row:
    system.wait_all_ready()
    row = Row(POISON_NAME, "mid-job", SESSIONS + 1)
    load = Load(
        system.websocket_url,
        sessions=SESSIONS,
        duration_s=SPEECH_S,
        ramp_s=0.0,
        seed=seed + 1_000,
    )
    row.problems += asyncio.run(poisoned_session(system.websocket_url, seed))
    row.problems += texts_wrong(load.wait(LOAD_END_S), SESSIONS)
    return row


def _random(
    system: System, kills: int, minutes: float, sessions: int, seed: int, out: Path
) -> bool:
    problems, figures = random_kills.run(
        system,
        kills=kills,
        minutes=minutes,
        sessions=sessions,
        seed=seed,
        show=lambda text: console.print(f"[dim]{text}[/]"),
    )
    console.print_json(data=figures)
    for problem in problems[: report.PROBLEMS_SHOWN_MAX]:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "chaos_random.json").write_text(
        json.dumps({**figures, "problems": problems}, ensure_ascii=False, indent=1) + "\n",
        encoding="utf-8",
    )
    return not problems


if __name__ == "__main__":
    typer.run(main)
