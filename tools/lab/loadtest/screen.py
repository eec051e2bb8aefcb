"""Progress of a load test: a live table on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tools.lab.loadtest.driver import Progress
from tools.lab.loadtest.figures import percentile
from tools.lab.loadtest.samples import Samples

LINE_EVERY_S = 5.0
"""Where there is no terminal."""


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

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, at_s: float, progress: Progress, samples: Samples) -> None:
        if self._live is not None:
            self._live.update(self._table(at_s, progress, samples), refresh=True)
        elif at_s >= self._line_due_s:
            self._line_due_s = at_s + LINE_EVERY_S
            self._console.print(line(at_s, progress, samples))

    def _table(self, at_s: float, progress: Progress, samples: Samples) -> Table:
        table = Table(title=f"{self._title} · {max(0.0, at_s):.0f} s", show_header=False)
        table.add_row("sessions speaking", str(progress.active))
        table.add_row("waiting to connect", str(progress.waiting))
        for status, count in sorted(progress.ended.items()):
            style = "green" if status == "succeeded" else "red"
            table.add_row(status.replace("_", " "), str(count), style=style)
        table.add_row("503 answers", str(progress.refusals))
        table.add_row("resumed connections", str(progress.resumes))
        table.add_row("segment end → result", _recent(progress.recent_segment_ms))
        table.add_row("finish → final", _recent(progress.recent_final_ms))
        if samples.taken:
            sample = samples.taken[-1]
            waiting, wait_ms = sample.queue.get("queued"), sample.queue.get("est_wait_ms")
            table.add_row("queue", f"{waiting} jobs, {wait_ms} ms")
            cores = ", ".join(f"{kind} {used:.2f}" for kind, used in recent_cores(samples).items())
            table.add_row("cores", cores)
        return table


def line(at_s: float, progress: Progress, samples: Samples) -> str:
    """The progress in one line."""
    ended = ", ".join(f"{count} {status}" for status, count in sorted(progress.ended.items()))
    cores = sum(recent_cores(samples).values())
    return (
        f"{max(0.0, at_s):5.0f} s  {progress.active} speaking, {progress.waiting} waiting; "
        f"{ended or 'none ended'}; segment end → result {_recent(progress.recent_segment_ms)}; "
        f"{cores:.2f} cores"
    )


def recent_cores(samples: Samples) -> dict[str, float]:
    """Processor use by kind over the last samples, in cores."""
    if len(samples.taken) < 2:
        return {}
    before, now = samples.taken[-min(4, len(samples.taken))], samples.taken[-1]
    span_s = max(now.at_s - before.at_s, 1e-3)
    return {
        kind: max(0.0, used_s - before.cpu_s.get(kind, 0.0)) / span_s
        for kind, used_s in sorted(now.cpu_s.items())
    }


def _recent(values: list[float]) -> str:
    if not values:
        return "–"
    return f"p50 {percentile(values, 50):.0f}, p95 {percentile(values, 95):.0f} ms"
