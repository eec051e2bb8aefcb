"""``asr transcribe``: stream files, standard input or URLs to a server and print the text.

The final text goes to standard output, everything else to standard error. Exit codes: 0, the text
is complete; 1, part of it is missing; 2, wrong usage; 75, the server is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from asr_client import audio
from asr_client.client import (
    BUSY_STATUS,
    DEFAULT_URL,
    RESUME_S,
    TOKEN_VARIABLE,
    Session,
    connect,
)
from asr_client.events import Event, FinalResult, PartialResult, Problem, Segment
from asr_client.exceptions import RefusedError, SessionError, UnreachableError
from asr_client.protocol import Mode

EXIT_OK = 0
EXIT_INCOMPLETE = 1
EXIT_BUSY = 75
"""EX_TEMPFAIL of BSD ``sysexits.h``."""
URL_VARIABLE = "ASR_URL"


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the command, the same for each source."""

    url: str
    speed: float
    partials: bool
    model: str | None
    speakers: bool
    language: str | None
    chunk_ms: int
    mode: Mode
    rate_hz: int
    resume: bool
    token: str | None


class Screen:
    """Prints events as they arrive: segments remain, the partial result below them changes."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        match event:
            case PartialResult():
                self._live.update(Text(f"… {event.text}", style="dim"), refresh=True)
            case Segment():
                self._live.update(Text(""), refresh=True)
                span = f"{event.start_ms / 1000:7.2f} to {event.end_ms / 1000:7.2f} s  "
                speaker = "" if event.speaker is None else f"Speaker {event.speaker}: "
                self.console.print(Text(span, style="cyan") + Text(speaker + event.text))
            case Problem():
                print_error(self.console, f"{event.code}: {event.message}")


def print_error(console: Console, message: str) -> None:
    console.print(Text(f"error: {message}", style="red"), soft_wrap=True)


def pieces_of(source: str, options: Options) -> AsyncIterator[bytes]:
    """Return the audio of ``source`` in chunks. In mode ``chunk`` a file is one chunk.

    Raises:
        OSError: If the file cannot be read.
        UnknownDurationError: If the file is to be paced and its duration is unknown.
    """
    if source == "-":
        return audio.stdin_pieces()
    if source.startswith(("http://", "https://")):
        return audio.url_pieces(source)
    path = Path(source)
    data = path.read_bytes()
    try:
        duration_s = audio.file_duration_s(path, options.rate_hz)
    except audio.UnknownDurationError:
        if options.speed:
            raise
        duration_s = audio.pcm_duration_s(len(data), options.rate_hz)
    is_one_chunk = options.mode == "chunk"
    pieces = [data] if is_one_chunk else audio.slices(data, duration_s, options.chunk_ms)
    return audio.paced(pieces, duration_s, options.speed)


async def exchange(
    session: Session, pieces: AsyncIterator[bytes], screen: Screen, stop: asyncio.Event
) -> FinalResult:
    """Send ``pieces`` until ``stop`` is set, and show events up to the final result.

    Raises:
        SessionError: If the session is lost.
        OSError: If the audio cannot be read.
    """

    async def send() -> None:
        stopping = asyncio.ensure_future(stop.wait())
        while not stop.is_set():
            following = asyncio.ensure_future(anext(pieces, None))
            await asyncio.wait([stopping, following], return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                following.cancel()
                break
            if (piece := following.result()) is None:
                break
            await session.send(piece)
        stopping.cancel()
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
    return await session.final()


async def transcribe_source(
    source: str, options: Options, console: Console, stop: asyncio.Event
) -> int:
    """Transcribe one source, print its text and return the exit code.

    Raises:
        OSError, SessionError, UnknownDurationError, ValueError: As ``exchange`` and ``connect``.
    """
    pieces = pieces_of(source, options)
    async with connect(
        options.url,
        mode=options.mode,
        sample_rate_hz=options.rate_hz,
        model=options.model,
        language=options.language,
        partials=options.partials,
        speakers=options.speakers,
        token=options.token,
        resume_s=RESUME_S if options.resume else 0,
    ) as session:
        with Screen(console) as screen:
            final = await exchange(session, pieces, screen, stop)
    stored = "stored" if final.stored else "not yet stored"
    console.print(Text(f"{final.duration_s:.2f} s of audio, {stored}", style="dim"))
    sys.stdout.write(final.text + "\n")
    sys.stdout.flush()
    return EXIT_INCOMPLETE if session.problems else EXIT_OK


async def transcribe_all(sources: list[str], options: Options, console: Console) -> int:
    """Transcribe sources one after another and return the exit code.

    The first Ctrl-C ends the audio, and its text is still printed; the second ends the program.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    with contextlib.suppress(NotImplementedError):  # No signal handlers on Windows.
        loop.add_signal_handler(signal.SIGINT, interrupt)
    code = EXIT_OK
    for source in sources:
        if stop.is_set():
            return EXIT_INCOMPLETE
        if len(sources) > 1:
            console.print(Text(source, style="bold"))
        try:
            code = max(code, await transcribe_source(source, options, console, stop))
        except (SessionError, OSError, ValueError, audio.UnknownDurationError) as error:
            print_error(console, explain(error))
            code = EXIT_INCOMPLETE
            if isinstance(error, RefusedError | UnreachableError):
                is_busy = isinstance(error, RefusedError) and error.status == BUSY_STATUS
                return EXIT_BUSY if is_busy else EXIT_INCOMPLETE
    return code


def explain(error: Exception) -> str:
    """Return one line: what failed and what to do about it."""
    if isinstance(error, RefusedError):
        message = f"refused with {error.status}: {error}"
        if error.retry_after_s:
            return f"{message}; try again in {error.retry_after_s:g} s"
        if error.status == 401:
            return f"{message}; set {TOKEN_VARIABLE} or pass --token"
        if error.status in (403, 404):
            return f"{message}; check --url, which needs the path, as in {DEFAULT_URL}"
        return message
    if isinstance(error, UnreachableError):
        return f"{error}; start the server, or name another one with --url or {URL_VARIABLE}"
    if isinstance(error, audio.UnknownDurationError):
        return (
            f"{error}: pass --speed 0 to send it at once, or install the package with "
            "pip install 'asr-pipeline-client[av]'; raw PCM files are named *.pcm or *.raw"
        )
    return str(error)


def transcribe(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Audio files, HTTP URLs, or - for stdin."),
    ],
    url: Annotated[
        str, typer.Option(envvar=URL_VARIABLE, help="Address of the server.")
    ] = DEFAULT_URL,
    token: Annotated[
        str | None,
        typer.Option(
            envvar=TOKEN_VARIABLE,
            help="Access token. Prefer the variable: other users can read arguments.",
        ),
    ] = None,
    speed: Annotated[
        float, typer.Option(min=0, help="Pace of files, times real time; 0: as fast as possible.")
    ] = 1.0,
    model: Annotated[str | None, typer.Option(help="Name of one of the server's models.")] = None,
    language: Annotated[str | None, typer.Option(help="Language, such as zh or en.")] = None,
    partials: Annotated[bool, typer.Option(help="Show text while it is being spoken.")] = True,
    speakers: Annotated[bool, typer.Option(help="Show who speaks, if the server knows.")] = False,
    mode: Annotated[Mode, typer.Option(help="How the server reads chunks.")] = "auto",
    chunk_ms: Annotated[
        int, typer.Option(min=10, max=10_000, help="Audio in each chunk of a file, in ms.")
    ] = 100,
    rate_hz: Annotated[
        int, typer.Option("--rate", min=8_000, max=48_000, help="Sample rate of raw PCM, in Hz.")
    ] = 16_000,
    resume: Annotated[bool, typer.Option(help="Resume after a lost connection.")] = True,
) -> None:
    """Stream audio to a server and print its text.

    The text goes to standard output, times and messages to standard error. Exit code 0: the text
    is complete; 1: part of it is missing; 75: the server is busy, try again later.

    \b
    Examples:
      asr transcribe speech.wav
      asr transcribe --speed 0 a.mp3 b.webm > texts.txt
      arecord -f S16_LE -r 16000 | asr transcribe -
      ASR_URL=wss://HOST/ws/asr asr transcribe https://example.com/talk.mp3
    """
    options = Options(
        url=url,
        speed=speed,
        partials=partials,
        model=model,
        speakers=speakers,
        language=language,
        chunk_ms=chunk_ms,
        mode=mode,
        rate_hz=rate_hz,
        resume=resume,
        token=token,
    )
    console = Console(stderr=True, highlight=False)
    raise typer.Exit(asyncio.run(transcribe_all(sources, options, console)))
