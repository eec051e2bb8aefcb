"""``python -m tools.lab.loadtest``: real-time sessions, each with a text of its own, every word
checked.

Exit codes: 0 every admitted session has its text (with ``--strict``: all sessions were admitted,
and latencies are within the targets); 1 a text is wrong or missing; 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from asr_client.addresses import http_url
from asr_client.client import TOKEN_VARIABLE
from asr_client.exceptions import ServerBusyError, SessionError
from asr_client.options import URL_VARIABLE, explain, fail
from asr_client.rest import Rest
from runtime import lifecycle
from tools.lab.harness.process import ROOT
from tools.lab.harness.stack import START_ORDER, Stack, supervised_stack
from tools.lab.loadtest import report
from tools.lab.loadtest.capacity import largest_that_holds
from tools.lab.loadtest.driver import Progress
from tools.lab.loadtest.figures import Summary, Targets, summary
from tools.lab.loadtest.plan import LENGTH_S, Length, Plan, gateway_url, seconds
from tools.lab.loadtest.restarts import Restarts
from tools.lab.loadtest.run import Results, run
from tools.lab.loadtest.samples import Samples
from tools.lab.loadtest.screen import Screen
from tools.lab.loadtest.user import Behaviour

CAPACITY_STEP = 25
SPOKEN_MODEL = "demo"
DIGITS_ONLY = (
    f"the sessions speak digits, which only the model {SPOKEN_MODEL} writes as words: start the "
    f"server with ASR_MODEL={SPOKEN_MODEL}, or pass --files"
)

SessionsOption = Annotated[int, typer.Option("-c", "--sessions", min=1, max=20_000)]
DurationOption = Annotated[
    str | None, typer.Option("-d", "--duration", help="Speech of each session, such as 60s or 5m.")
]
ModeOption = Annotated[
    Length, typer.Option(help="Length of a session without -d: 1 min, 30 min or 1 h.")
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        "--server",
        envvar=URL_VARIABLE,
        help="Address of a running gateway, such as HOST:PORT. By default a system is started.",
    ),
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        envvar=TOKEN_VARIABLE,
        show_envvar=False,
        help="Access token. Other users can see arguments: prefer the variable ASR_TOKEN.",
    ),
]
StackOption = Annotated[str, typer.Option(help="Processes of the started system: KIND=NUMBER,…")]
CheckoutOption = Annotated[
    Path, typer.Option(help="Checkout whose code the started system runs, to compare two.")
]
SessionModeOption = Annotated[
    Literal["auto", "stream", "chunk"], typer.Option(help="Mode of the sessions.")
]
ChunkMsOption = Annotated[int, typer.Option(min=20, max=20_000, help="Audio per message.")]
FramesOption = Annotated[Literal["binary", "json"], typer.Option(help="Frames of the chunks.")]
PartialsOption = Annotated[bool, typer.Option(help="Request partial results.")]
SpeedOption = Annotated[
    float, typer.Option(min=0.1, max=1_000, help="Speed of speech, as a multiple of real time.")
]
RampOption = Annotated[str, typer.Option(help="Start all sessions within this time.")]
RateOption = Annotated[
    float, typer.Option(min=0, help="Instead of a ramp: mean arrivals per second, at random times.")
]
FilesOption = Annotated[
    Path | None,
    typer.Option(
        help="Recordings, each with its transcript in NAME.txt. By default the sessions speak "
        "digits, for a server with ASR_MODEL=demo."
    ),
]
ResumeOption = Annotated[bool, typer.Option(help="Resume a session whose connection is lost.")]
PatienceOption = Annotated[str, typer.Option(help="How long a refused session retries.")]
FinalTimeoutOption = Annotated[str, typer.Option(help="Deadline from finish to the final result.")]
ProcessesOption = Annotated[
    int, typer.Option(min=1, max=64, help="Processes of the load generator.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of texts and arrivals.")]
OutOption = Annotated[Path, typer.Option(help="Directory for the report.")]
StrictOption = Annotated[
    bool, typer.Option(help="Also exit with 1 for a missed latency target or a refused session.")
]
FinalP95MsOption = Annotated[
    float, typer.Option(min=1, help="Target from finish to the final result.")
]
SegmentP95MsOption = Annotated[
    float, typer.Option(min=1, help="Target from the end of speech to its text.")
]
FindCapacityOption = Annotated[
    bool,
    typer.Option(help="Find the largest number of sessions, up to -c, that meets the targets."),
]
LeastOption = Annotated[
    int, typer.Option(min=1, help="The smallest number that --find-capacity tries.")
]
RestartEveryOption = Annotated[
    str | None,
    typer.Option(
        help="Restart each process of the started system once in this time, such as 5m. The report "
        "compares the first and the last part with the same restarts, of whole intervals."
    ),
]


def own_stack(
    exits: contextlib.ExitStack, console: Console, concurrency: str, checkout: Path
) -> Stack:
    """A ready system of our own until ``exits`` is closed; ``concurrency`` as
    ``gateway=2,asr_worker=2``."""
    try:
        counts = {kind: int(n) for kind, _, n in (e.partition("=") for e in concurrency.split(","))}
    except ValueError as error:
        raise typer.BadParameter(f"not KIND=NUMBER,…: {concurrency!r}") from error
    if unknown := counts.keys() - START_ORDER:
        raise typer.BadParameter(f"not one of {', '.join(START_ORDER)}: {', '.join(unknown)}")
    console.print("[dim]starting the system[/]")
    workers = int(os.environ.get("ASR_WORKERS", "1"))
    stack = supervised_stack({}, workers=workers, checkout=checkout.resolve(), **counts)
    try:
        return exits.enter_context(stack)
    except AssertionError as error:
        fail(str(error))


def check_server(
    console: Console, server: str, token: str | None, is_digits: bool
) -> tuple[str, ...]:
    """Return the models of ``server``; none if it does not name them. End the program if nothing
    answers. ``is_digits``: the speech is digits, which only the bundled model writes as words."""
    try:
        health = Rest(server, token).get_json("/api/v1/health")
    except ServerBusyError:  # It may become ready.
        return ()
    except (SessionError, ValueError) as error:
        fail(explain(error))
    models = tuple(str(served.get("model")) for served in health.get("served", []))
    if is_digits and SPOKEN_MODEL not in models:
        console.print(f"warning: {DIGITS_ONLY}", style="yellow", markup=False, soft_wrap=True)
    return models


def _restart_every_s(restart_every: str | None, server: str | None) -> float | None:
    if restart_every is None:
        return None
    if server is not None:
        raise typer.BadParameter("--restart-every is for a system that the load test starts")
    return _duration(restart_every)


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    sessions: SessionsOption = 50,
    duration: DurationOption = None,
    mode: ModeOption = "short",
    server: ServerOption = None,
    token: TokenOption = None,
    stack: StackOption = "gateway=1,asr_worker=1",
    checkout: CheckoutOption = ROOT,
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
    restart_every: RestartEveryOption = None,
) -> None:
    """Open sessions whose texts are known, speak in real time, and check every word.

    Example: asr loadtest --url 127.0.0.1:8080 -c 20 -d 60s
    """
    lifecycle.be_interruptible()
    console, targets = Console(stderr=True, highlight=False), Targets(final_p95_ms, segment_p95_ms)
    with contextlib.ExitStack() as exits:
        started = None
        every_s = _restart_every_s(restart_every, server)
        if server is None:
            started = own_stack(exits, console, stack, checkout)
            server = f"127.0.0.1:{started.ports['gateway']}"
        try:
            plan = Plan(
                behaviour=Behaviour(
                    url=gateway_url(server),
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
            plan.share(0, plan.sessions)[0][2]()  # Unusable options fail here, before the run.
        except (ValueError, OSError) as error:
            raise typer.BadParameter(str(error)) from error
        if find_capacity:
            raise typer.Exit(_find_capacity(console, plan, processes, started, targets, out, least))
        found, results = _trial(console, plan, processes, started, every_s)
    _conclude(console, found, results, targets, out, files is None)
    raise typer.Exit(_exit_code(found, results, targets if strict else None))


def _trial(
    console: Console,
    plan: Plan,
    processes: int,
    started: Stack | None,
    restart_every_s: float | None = None,
) -> tuple[Summary, Results]:
    address = http_url(plan.behaviour.url)
    models = check_server(console, address, plan.behaviour.token, plan.files is None)
    samples = Samples(address, token=plan.behaviour.token, models=models)
    if started is not None:
        samples.processes = started.family
    restarts = None
    if started is not None and restart_every_s is not None:
        restarts = Restarts(restart_every_s, started.living, console.print)
    title = f"{plan.sessions} sessions of {plan.duration_s:.0f} s at {address}"
    with Screen(console, title) as screen:

        def show(at_s: float, progress: Progress, samples: Samples) -> None:
            if restarts is not None:
                restarts.go_on(at_s)
            screen.show(at_s, progress, samples)

        results = run(plan, processes, samples, show)
    if restarts is not None:
        results.restart_every_s = restart_every_s
    return summary(results.outcomes), results


def _conclude(
    console: Console,
    found: Summary,
    results: Results,
    targets: Targets,
    out: Path,
    is_digits: bool,
) -> None:
    written = report.write(out, found, results, targets)
    models = results.samples.models
    lines = [f"model: {', '.join(models) or 'unknown'}"]
    lines += [", ".join(f"{count} {status}" for status, count in found.statuses.items())]
    lines.append(f"most at once: {found.at_once} of {found.offered_at_once}")
    lines += [
        f"{kind.name}: p50 {kind.p50:.0f}, p95 {kind.p95:.0f}, p99 {kind.p99:.0f} ms"
        for kind in found.latencies
        if kind.count
    ]
    for reason, count in found.reasons.items():
        lines.append(f"{count} × {reason}")
    if is_digits and found.wrong and set(models) != {SPOKEN_MODEL}:
        lines.append(DIGITS_ONLY)
    for text in [*lines, f"report: {', '.join(str(path) for path in written)}"]:
        console.print(text, style="red" if " × " in text else None, markup=False, soft_wrap=True)


def _exit_code(found: Summary, results: Results, targets: Targets | None) -> int:
    right = found.texts_right and not results.stopped
    return 0 if right and (targets is None or found.holds(targets)) else 1


def _find_capacity(
    console: Console,
    plan: Plan,
    processes: int,
    started: Stack | None,
    targets: Targets,
    out: Path,
    least: int,
) -> int:
    """Print the number; return the exit code: 1 if a text was wrong, or if no number holds."""
    right = True

    def holds(sessions: int) -> bool:
        nonlocal right
        found, results = _trial(console, replace(plan, sessions=sessions), processes, started)
        _conclude(console, found, results, targets, out / f"{sessions}", plan.files is None)
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
    app()
