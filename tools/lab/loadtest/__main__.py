"""``python -m tools.lab.loadtest``: paced sessions, each with its own text, every word checked.

Exit codes: 0 every admitted session has its text (and, with ``--strict``, all were admitted and the
latencies kept); 1 something is wrong or missing; 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from runtime import lifecycle
from tools.cli.serve import wait_until_ready
from tools.client import TOKEN_VARIABLE
from tools.lab.loadtest import report
from tools.lab.loadtest.capacity import largest_that_holds
from tools.lab.loadtest.figures import Summary, Targets, summary
from tools.lab.loadtest.plan import LENGTH_S, Length, Plan, seconds, websocket_url
from tools.lab.loadtest.run import Results, run
from tools.lab.loadtest.screen import Screen
from tools.lab.loadtest.system import System
from tools.lab.loadtest.user import Behaviour
from tools.ops.ports import free_port
from tools.ops.stack import Stack

CAPACITY_STEP = 25

SessionsOption = Annotated[int, typer.Option("-c", "--sessions", min=1, max=20_000)]
DurationOption = Annotated[
    str | None, typer.Option("-d", "--duration", help="Of speech, such as 60s or 5m.")
]
ModeOption = Annotated[
    Length, typer.Option(help="How long a session is: 1 min, 30 min or 1 h, unless -d says.")
]
ServerOption = Annotated[
    str | None, typer.Option(help="HOST:PORT. Without it a stack of our own is started.")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        envvar=TOKEN_VARIABLE,
        show_envvar=False,
        help="For a server that wants one. Others can read arguments: rather ASR_TOKEN.",
    ),
]
StackOption = Annotated[str, typer.Option(help="Processes of our own stack, as for honcho -c.")]
SessionModeOption = Annotated[
    Literal["auto", "stream", "chunk"], typer.Option(help="The protocol's mode.")
]
ChunkMsOption = Annotated[int, typer.Option(min=20, max=20_000, help="Audio per message.")]
FramesOption = Annotated[Literal["binary", "json"], typer.Option(help="Kind of frames.")]
PartialsOption = Annotated[bool, typer.Option(help="Ask for partial texts.")]
SpeedOption = Annotated[float, typer.Option(min=0.1, max=1_000, help="Times real time.")]
RampOption = Annotated[str, typer.Option(help="Sessions begin within this time.")]
RateOption = Annotated[
    float, typer.Option(min=0, help="Instead: arrivals a second, at random times.")
]
FilesOption = Annotated[
    Path | None, typer.Option(help="Recordings, each with its transcript in NAME.txt.")
]
ResumeOption = Annotated[bool, typer.Option(help="Resume sessions that lose a connection.")]
PatienceOption = Annotated[str, typer.Option(help="How long refused sessions come back.")]
FinalTimeoutOption = Annotated[str, typer.Option(help="From finish to the final result.")]
ProcessesOption = Annotated[int, typer.Option(min=1, max=64, help="Of the generator.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of texts and arrivals.")]
OutOption = Annotated[Path, typer.Option(help="Directory of the report.")]
StrictOption = Annotated[
    bool, typer.Option(help="Exit with 1 also for a missed latency target or a refused session.")
]
FinalP95MsOption = Annotated[float, typer.Option(min=1, help="Target, finish to final.")]
SegmentP95MsOption = Annotated[float, typer.Option(min=1, help="Target, end of speech to text.")]
FindCapacityOption = Annotated[
    bool, typer.Option(help="Find the most sessions, up to -c, for which the targets hold.")
]
LeastOption = Annotated[int, typer.Option(min=1, help="For --find-capacity: the fewest to try.")]


@contextlib.contextmanager
def own_stack(console: Console, concurrency: str) -> Iterator[tuple[str, int]]:
    """A stack of our own with embedded services: its HOST:PORT, and the process above it all."""
    with tempfile.TemporaryDirectory(prefix="asr-loadtest-") as directory:
        port = free_port()
        environment = {
            "PORT": str(port),
            "DATA_DIR": directory,
            "AUTH_TOKENS_FILE": "",
            **{
                f"BROKER_{name}": f"ipc://{directory}/{name.lower()}"
                for name in ("FRONTEND", "BACKEND", "EVENTS")
            },
        }
        lines: list[str] = []
        stack = Stack(lines.append, concurrency, environment=environment)
        try:
            wait_until_ready(stack, f"http://127.0.0.1:{port}")
            console.print(f"[dim]stack ready on port {port}[/]")
            yield f"127.0.0.1:{port}", stack.pid
        finally:
            stack.stop()


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def main(
    sessions: SessionsOption = 50,
    duration: DurationOption = None,
    mode: ModeOption = "short",
    server: ServerOption = None,
    token: TokenOption = None,
    stack: StackOption = "gateway=1,asr_worker=1",
    session_mode: SessionModeOption = "auto",
    chunk_ms: ChunkMsOption = 200,
    frames: FramesOption = "binary",
    partials: PartialsOption = False,
    speed: SpeedOption = 1.0,
    ramp: RampOption = "10s",
    rate: RateOption = 0.0,
    files: FilesOption = None,
    resume: ResumeOption = True,
    patience: PatienceOption = "60s",
    final_timeout: FinalTimeoutOption = "30s",
    processes: ProcessesOption = 1,
    seed: SeedOption = 1,
    out: OutOption = Path(),
    strict: StrictOption = False,
    final_p95_ms: FinalP95MsOption = 1_000,
    segment_p95_ms: SegmentP95MsOption = 1_500,
    find_capacity: FindCapacityOption = False,
    least: LeastOption = CAPACITY_STEP,
) -> None:
    """Load a gateway with sessions whose texts are known, and check every word."""
    console = Console(stderr=True, highlight=False)
    targets = Targets(final_p95_ms, segment_p95_ms)
    with contextlib.ExitStack() as exits:
        pid = None
        if server is None:
            server, pid = exits.enter_context(own_stack(console, stack))
        try:
            plan = Plan(
                behaviour=Behaviour(
                    url=websocket_url(server),
                    mode=session_mode,
                    binary=frames == "binary",
                    partials=partials,
                    resume=resume,
                    speed=speed,
                    patience_s=_duration(patience),
                    final_timeout_s=_duration(final_timeout),
                    token=token,
                ),
                sessions=sessions,
                duration_s=_duration(duration) if duration else LENGTH_S[mode],
                chunk_ms=chunk_ms,
                ramp_s=_duration(ramp),
                rate_per_s=rate,
                seed=seed,
                files=files,
            )
            plan.share(0, plan.sessions)[0][2]()  # What cannot be spoken is told before the run.
        except (ValueError, OSError) as error:
            raise typer.BadParameter(str(error)) from error
        if find_capacity:
            raise typer.Exit(_find_capacity(console, plan, processes, pid, targets, out, least))
        found, results = _trial(console, plan, processes, pid)
    _conclude(console, found, results, targets, out)
    right = found.texts_right and not results.stopped
    raise typer.Exit(0 if right and (found.holds(targets) or not strict) else 1)


def _trial(
    console: Console, plan: Plan, processes: int, pid: int | None
) -> tuple[Summary, Results]:
    address = plan.behaviour.url.split("/")[2]
    system = System(f"http://{address}", pid, token=plan.behaviour.token)
    title = f"{plan.sessions} sessions of {plan.duration_s:.0f} s at {address}"
    with Screen(console, title) as screen:
        results = run(plan, processes, system, screen.show)
    return summary(results.outcomes), results


def _conclude(
    console: Console, found: Summary, results: Results, targets: Targets, out: Path
) -> None:
    written = report.write(out, found, results, targets)
    lines = [", ".join(f"{count} {status}" for status, count in found.statuses.items())]
    lines.append(f"most at a time: {found.at_once} of {found.offered_at_once}")
    lines += [
        f"{kind.name}: p50 {kind.p50:.0f}, p95 {kind.p95:.0f}, p99 {kind.p99:.0f} ms"
        for kind in found.latencies
        if kind.count
    ]
    for reason, count in found.reasons.items():
        lines.append(f"{count} × {reason}")
    for text in [*lines, f"report: {', '.join(str(path) for path in written)}"]:
        console.print(text, style="red" if " × " in text else None, markup=False, soft_wrap=True)


def _find_capacity(
    console: Console,
    plan: Plan,
    processes: int,
    pid: int | None,
    targets: Targets,
    out: Path,
    least: int,
) -> int:
    """Print the number; returns the exit code: 1 if a text was wrong, or no number holds."""
    right = True

    def holds(sessions: int) -> bool:
        nonlocal right
        found, results = _trial(console, replace(plan, sessions=sessions), processes, pid)
        _conclude(console, found, results, targets, out / f"{sessions}")
        if results.stopped:
            raise typer.Abort
        right = right and not found.statuses.get("wrong_text")
        console.print(f"{sessions}: {'holds' if found.holds(targets) else 'does not hold'}")
        return found.holds(targets)

    low = min(least, plan.sessions)
    most, trials = largest_that_holds(holds, low, plan.sessions, CAPACITY_STEP)
    for sessions, held in sorted(trials):
        console.print(f"{sessions:6d}  {'holds' if held else 'does not hold'}")
    print(most)
    return 0 if right and most else 1


if __name__ == "__main__":
    lifecycle.be_interruptible()
    typer.run(main)
