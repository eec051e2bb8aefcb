"""``python -m tools.transcribe FILE``: stream a file of any format, or standard input, to the
gateway and print its text.

The final text goes to standard output, everything else to standard error. Exit codes: 0 the text
is complete; 1 something of it is missing; 2 wrong usage; 75 the server is busy, try again later.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tools import audio_source
from tools import client as c

EXIT_OK = 0
EXIT_INCOMPLETE = 1
EXIT_BUSY = 75
"""EX_TEMPFAIL of BSD ``sysexits.h``."""


@dataclass
class Screen:
    """Shows events as they come: finished segments stay, the partial text below them changes."""

    console: Console
    problems: int = 0
    final: c.FinalText | None = None
    _live: Live = field(init=False)

    def __post_init__(self) -> None:
        self._live = Live(console=self.console, transient=True, auto_refresh=False)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: c.Event) -> None:
        match event:
            case c.PartialText():
                self._live.update(Text(f"… {event.text}", style="dim"), refresh=True)
            case c.ChunkText():
                self._live.update(Text(""), refresh=True)
                span = f"{event.start_ms / 1000:7.2f} to {event.end_ms / 1000:7.2f} s  "
                self.console.print(Text(span, style="cyan") + Text(event.text))
            case c.Problem():
                self.problems += 1
                _complain(self.console, f"{event.code}: {event.message}")
            case c.FinalText():
                self.final = event


async def transcribe(
    session: c.AsrSession, pieces: AsyncIterator[bytes], screen: Screen, stop: asyncio.Event
) -> None:
    """Send ``pieces``, or those before ``stop`` is set, and show events until the final one.

    Raises:
        SessionError: if the session ends early.
        OSError: if the audio cannot be read.
    """

    async def send() -> None:
        ending = asyncio.ensure_future(stop.wait())
        while not stop.is_set():
            following = asyncio.ensure_future(anext(pieces, None))
            await asyncio.wait([ending, following], return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                break
            if (piece := following.result()) is None:
                break
            await session.send(piece)
        ending.cancel()
        await session.finish()

    async def receive() -> None:
        async for event in session.events():
            screen.show(event)

    tasks = [asyncio.create_task(send()), asyncio.create_task(receive())]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def pieces_of(
    source: str, mode: c.Mode, chunk_ms: int, rate_hz: int, speed: float
) -> AsyncIterator[bytes]:
    """The audio of ``source``, ready to be sent. In mode ``chunk`` a file is one chunk.

    Raises:
        OSError: if there is no such file.
    """
    if source == "-":
        return audio_source.stdin_pieces()
    path = Path(source)
    data = path.read_bytes()
    duration_s = audio_source.file_duration_s(path, rate_hz)
    whole = mode == "chunk"
    pieces = [data] if whole else audio_source.slices(data, duration_s, chunk_ms)
    return audio_source.paced(pieces, duration_s, speed)


def _end_audio_on_interrupt(stop: asyncio.Event) -> None:
    """The first Ctrl-C ends the audio, and its text still comes; the second ends the program."""
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, interrupted)


def main(
    source: Annotated[str, typer.Argument(metavar="FILE", help="Audio file, or - for stdin.")],
    url: Annotated[str, typer.Option(help="The gateway.")] = c.DEFAULT_URL,
    speed: Annotated[
        float, typer.Option(min=0, help="Times real time; 0: as fast as possible. Files only.")
    ] = 1.0,
    partials: Annotated[bool, typer.Option(help="Show text while it is being spoken.")] = True,
    language: Annotated[str | None, typer.Option(help="Such as zh or en.")] = None,
    chunk_ms: Annotated[int, typer.Option(min=10, max=10_000, help="Audio per message.")] = 100,
    mode: Annotated[c.Mode, typer.Option(help="How chunks are read.")] = "auto",
    rate_hz: Annotated[
        int, typer.Option("--rate", min=8_000, max=48_000, help="Of raw PCM, in Hz.")
    ] = 16_000,
    resume: Annotated[bool, typer.Option(help="Go on after a lost connection.")] = True,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=c.TOKEN_VARIABLE,
            show_envvar=False,
            help="For a server that wants one. Others can read arguments: rather ASR_TOKEN.",
        ),
    ] = None,
) -> None:
    """Stream audio to the gateway and print its text."""
    console = Console(stderr=True, highlight=False)

    async def run() -> Screen:
        stop = asyncio.Event()
        _end_audio_on_interrupt(stop)
        pieces = pieces_of(source, mode, chunk_ms, rate_hz, speed)
        async with c.connect(
            url,
            mode=mode,
            sample_rate_hz=rate_hz,
            language=language,
            partials=partials,
            token=token,
            resume_s=c.RESUME_S if resume else 0,
        ) as session:
            with Screen(console) as screen:
                await transcribe(session, pieces, screen, stop)
        return screen

    try:
        screen = asyncio.run(run())
    except c.RefusedError as error:
        later = f"; try again in {error.retry_after_s:g} s" if error.retry_after_s else ""
        _complain(console, f"refused with {error.status}: {error}{later}")
        raise typer.Exit(EXIT_BUSY if error.status == 503 else EXIT_INCOMPLETE) from error
    except (c.SessionError, OSError) as error:
        _complain(console, str(error))
        raise typer.Exit(EXIT_INCOMPLETE) from error
    raise typer.Exit(_conclude(screen, console))


def _complain(console: Console, message: str) -> None:
    console.print(Text(f"error: {message}", style="red"), soft_wrap=True)


def _conclude(screen: Screen, console: Console) -> int:
    assert screen.final is not None
    stored = "stored" if screen.final.stored else "not yet stored"
    console.print(Text(f"{screen.final.duration_s:.2f} s of audio, {stored}", style="dim"))
    sys.stdout.write(screen.final.text + "\n")
    return EXIT_INCOMPLETE if screen.problems else EXIT_OK


if __name__ == "__main__":
    typer.run(main)
