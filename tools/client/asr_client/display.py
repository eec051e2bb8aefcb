"""The output of ``asr transcribe`` on standard error: progress, and a summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from asr_client.events import Event, PartialResult, Problem, Segment
from asr_client.options import print_error
from asr_client.sources import Source, total_size

Status = Literal["complete", "incomplete", "interrupted", "busy", "failed"]
_STYLES: Final = {"complete": "green", "incomplete": "yellow", "interrupted": "yellow"}
NAME_COLUMNS_MAX: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of one source."""

    source: Source
    status: Status
    text: str = ""
    duration_s: float = 0.0
    took_s: float = 0.0
    session_id: str = ""
    stored: bool = False
    error: str = ""


class Display(Protocol):
    """Shows the work on sources."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def begin(self, source: Source) -> None:
        """A session of ``source`` is started."""

    def event(self, source: Source, event: Event) -> None:
        """The server sent ``event``."""

    def recognised(self, source: Source, size: int) -> None:
        """The first ``size`` bytes of ``source`` have been recognised."""

    def end(self, source: Source) -> None:
        """``source`` is done."""


class Spoken:
    """Prints events as they arrive: segments remain, the partial result below them changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, source: Source) -> None:
        pass

    def event(self, source: Source, event: Event) -> None:
        match event:
            case PartialResult():
                self._live.update(Text(f"… {event.text}", style="dim"), refresh=True)
            case Segment():
                self._live.update(Text(""), refresh=True)
                if event.text:
                    line = segment_line(event.start_ms, event.end_ms, event.speaker, event.text)
                    self._console.print(line)
            case Problem():
                print_error(self._console, f"{event.code}: {event.message}")

    def recognised(self, source: Source, size: int) -> None:
        pass

    def end(self, source: Source) -> None:
        pass


def segment_line(start_ms: int, end_ms: int, speaker: int | None, text: str) -> Text:
    """Return a segment as a line for people: its times, its speaker, its text."""
    span = f"{start_ms / 1000:7.2f} to {end_ms / 1000:7.2f} s  "
    name = "" if speaker is None else f"Speaker {speaker}: "
    return Text(span, style="cyan") + Text(name + text)


class Bars:
    """A progress bar for each source in work, and one for all; nothing but errors if ``quiet``, or
    if standard error is no terminal."""

    def __init__(self, console: Console, sources: Sequence[Source], *, quiet: bool) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._all: TaskID | None = None
        self._sizes = total_size(sources)
        if len(sources) > 1:
            self._all = self._progress.add_task(
                f"all {len(sources)}", total=self._sizes or len(sources)
            )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, source: Source) -> None:
        if source.name not in self._tasks:
            name = source.name[-NAME_COLUMNS_MAX:]
            self._tasks[source.name] = self._progress.add_task(name, total=source.size)

    def event(self, source: Source, event: Event) -> None:
        if isinstance(event, Problem):
            print_error(self._console, f"{source.name}: {event.code}: {event.message}")

    def recognised(self, source: Source, size: int) -> None:
        size = min(size, source.size or size)
        self._progress.update(self._tasks[source.name], completed=size)
        if self._sizes is not None and self._all is not None:
            self._progress.advance(self._all, max(0, size - self._done.get(source.name, 0)))
        self._done[source.name] = max(size, self._done.get(source.name, 0))

    def end(self, source: Source) -> None:
        if self._sizes is None and self._all is not None:
            self._progress.advance(self._all)
        if source.name in self._tasks:
            self.recognised(source, source.size or 0)
            self._progress.remove_task(self._tasks.pop(source.name))


def summary(results: Sequence[Result]) -> Table | Text:
    """Return a summary: a line for one source, a table for several."""
    if len(results) == 1:
        (only,) = results
        stored = "stored" if only.stored else "not yet stored"
        return Text(
            f"{only.duration_s:.2f} s of audio in {only.took_s:.2f} s, {stored} as "
            f"{only.session_id}",
            style="dim",
        )
    table = Table(box=None, pad_edge=False)
    for name in ("source", "audio", "took", "speed", "status"):
        table.add_column(name, justify="left" if name in ("source", "status") else "right")
    for result in results:
        speed = f"{result.duration_s / result.took_s:.1f}×" if result.took_s else ""
        table.add_row(
            Text(result.source.name, overflow="fold"),
            f"{result.duration_s:.1f} s",
            f"{result.took_s:.1f} s",
            speed,
            Text(result.status, style=_STYLES.get(result.status, "red")),
        )
    return table
