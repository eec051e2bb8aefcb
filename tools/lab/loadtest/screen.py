"""What a person sees while a load test runs: a live table, or a line now and then."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tools.lab.loadtest.driver import Progress
from tools.lab.loadtest.figures import percentile
from tools.lab.loadtest.system import System

LINE_EVERY_S = 5.0
"""Without a terminal."""


class Screen:
    """Use as a context manager; call ``show`` about once a second."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._line_due_s = 0.0

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, at_s: float, progress: Progress, system: System) -> None:
        if self._live is not None:
            self._live.update(self._table(at_s, progress, system), refresh=True)
        elif at_s >= self._line_due_s:
            self._line_due_s = at_s + LINE_EVERY_S
            self._console.print(line(at_s, progress, system))

    def _table(self, at_s: float, progress: Progress, system: System) -> Table:
        table = Table(title=f"{self._title} · {max(0.0, at_s):.0f} s", show_header=False)
        table.add_row("sessions speaking", str(progress.active))
        table.add_row("to come or coming back", str(progress.waiting))
        for status, count in sorted(progress.ended.items()):
            style = "green" if status == "succeeded" else "red"
            table.add_row(status.replace("_", " "), str(count), style=style)
        table.add_row("503 answers", str(progress.refusals))
        table.add_row("connections replaced", str(progress.resumes))
        table.add_row("segment end → result", _recent(progress.recent_segment_ms))
        table.add_row("finish → final", _recent(progress.recent_final_ms))
        if system.samples:
            sample = system.samples[-1]
            waiting, wait_ms = sample.queue.get("queued"), sample.queue.get("est_wait_ms")
            table.add_row("queue", f"{waiting} jobs, {wait_ms} ms")
            cores = ", ".join(f"{kind} {used:.2f}" for kind, used in recent_cores(system).items())
            table.add_row("cores", cores)
        return table


def line(at_s: float, progress: Progress, system: System) -> str:
    """The same in one line."""
    ended = ", ".join(f"{count} {status}" for status, count in sorted(progress.ended.items()))
    cores = sum(recent_cores(system).values())
    return (
        f"{max(0.0, at_s):5.0f} s  {progress.active} speaking, {progress.waiting} waiting; "
        f"{ended or 'none ended'}; segment end → result {_recent(progress.recent_segment_ms)}; "
        f"{cores:.2f} cores"
    )


def recent_cores(system: System) -> dict[str, float]:
    """Processor use by kind over the last seconds, in cores."""
    if len(system.samples) < 2:
        return {}
    before, now = system.samples[-min(4, len(system.samples))], system.samples[-1]
    span_s = max(now.at_s - before.at_s, 1e-3)
    return {
        kind: max(0.0, used_s - before.cpu_s.get(kind, 0.0)) / span_s
        for kind, used_s in sorted(now.cpu_s.items())
    }


def _recent(values: list[float]) -> str:
    if not values:
        return "–"
    return f"p50 {percentile(values, 50):.0f}, p95 {percentile(values, 95):.0f} ms"
