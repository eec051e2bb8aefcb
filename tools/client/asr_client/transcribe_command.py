"""``asr transcribe``: send files, standard input or URLs to a server, and write their texts.

Texts go to standard output or to files, everything else to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from asr_client import audio, outputs
from asr_client.client import DEFAULT_URL, OPEN_TIMEOUT_S, RESUME_S, Session, connect
from asr_client.display import Bars, Display, Result, Spoken, Status, summary
from asr_client.events import Segment
from asr_client.exceptions import RefusedError, ServerBusyError, SessionError, UnreachableError
from asr_client.options import (
    EXIT_BUSY,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    Form,
    Json,
    Token,
    Url,
    explain,
    fail,
    print_error,
)
from asr_client.outputs import Format, OutputError
from asr_client.protocol import Mode
from asr_client.rest import Rest
from asr_client.sources import STDIN, Source, expand

NO_AUDIO: Final = "it is empty, or contains no audio"
CONTACT_S: Final = 1.5
"""Limit on the opening of the first connection. A wrong port may be open and never answer."""
BUSY_PAUSE_S: Final = 1.0
"""Pause before another try at a busy server that names none."""
STORED_S_MAX: Final = 10.0
"""Longest wait for the subtitles of a session that has just ended."""
STORED_PAUSE_S: Final = 0.2
INTERRUPTED_S_MAX: Final = 5.0
"""Longest wait, after Ctrl-C, for the text of the audio that the server has received."""
UNKNOWN_DURATION: Final = (
    "without --realtime it is sent at once, which needs no duration; or install PyAV with "
    "pip install 'asr-pipeline-client[av]'; raw PCM files are named *.pcm or *.raw"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the command, the same for each source."""

    url: str
    token: str | None = None
    model: str | None = None
    language: str | None = None
    hotwords: tuple[str, ...] = ()
    speakers: bool = False
    user: str | None = None
    mode: Mode = "auto"
    rate_hz: int = 16_000
    realtime: bool = False
    chunk_ms: int = 100
    partials: bool = True
    resume: bool = True
    wait_s: float = 30.0


def pieces_of(source: Source, options: Options) -> AsyncIterator[bytes]:
    """Return the audio of ``source`` in chunks. In mode ``chunk`` a file is one chunk.

    Raises:
        OSError: If the file cannot be read.
        UnknownDurationError: If the file is to be paced and its duration is unknown.
    """
    if source.name == STDIN:
        return audio.stdin_pieces()
    if not source.is_file:
        return audio.url_pieces(source.name)
    path = Path(source.name)
    if not options.realtime:
        size = source.size if options.mode == "chunk" else audio.READ_BYTES
        return audio.file_pieces(path, size or audio.READ_BYTES)
    data = path.read_bytes()
    duration_s = audio.file_duration_s(path, options.rate_hz)
    is_one_chunk = options.mode == "chunk"
    pieces = [data] if is_one_chunk else audio.slices(data, duration_s, options.chunk_ms)
    return audio.paced(pieces, duration_s, 1.0)


class Transcription:
    """The work on one source: its session and its result."""

    def __init__(
        self, source: Source, options: Options, display: Display, stop: asyncio.Event
    ) -> None:
        self.source = source
        self.segments: list[Segment] = []
        self._options = options
        self._display = display
        self._stop = stop
        self.is_admitted = False
        """The server has started its session."""
        self._sent: list[int] = []
        """Bytes of the source up to the end of each chunk."""

    async def run(
        self, open_timeout_s: float, warn: Callable[[str], None]
    ) -> tuple[Result, dict[str, Any]]:
        """Transcribe; return the result, and the fields of its JSON that are not the server's.

        Raises:
            OSError, SessionError, UnknownDurationError, ValueError: As ``pieces_of``, ``connect``.
        """
        options = self._options
        pieces = pieces_of(self.source, options)
        async with connect(
            options.url,
            token=options.token,
            mode=options.mode,
            sample_rate_hz=options.rate_hz,
            model=options.model,
            language=options.language,
            hotwords=options.hotwords,
            partials=options.partials and isinstance(self._display, Spoken),
            speakers=options.speakers,
            user_id=options.user,
            resume_s=RESUME_S if options.resume else 0,
            open_timeout_s=open_timeout_s,
        ) as session:
            began_s = time.monotonic()
            self.is_admitted = True
            self._display.begin(self.source)
            for warning in session.started.warnings:
                warn(warning)
            is_whole = await self._exchange(session, pieces)
            if session.final_result is not None:
                if is_whole and not session.final_result.duration_s and not session.problems:
                    raise ValueError(f"{self.source.name}: {NO_AUDIO}")
                for warning in session.final_result.warnings:
                    warn(f"{self.source.name}: {warning}")
            return self._result(session, is_whole, time.monotonic() - began_s)

    async def _exchange(self, session: Session, pieces: AsyncIterator[bytes]) -> bool:
        """Send ``pieces`` until Ctrl-C, and take events up to the final result. Return whether
        everything was sent."""
        sending = asyncio.create_task(self._send(session, pieces))
        receiving = asyncio.create_task(self._receive(session))
        try:
            await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_EXCEPTION)
            # If the session is lost, both fail; the receiver knows why. If the source cannot be
            # read, the sender fails alone.
            if not (sending.done() and isinstance(sending.exception(), OSError | ValueError)):
                await receiving
            await sending
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
        return sending.result()

    async def _send(self, session: Session, pieces: AsyncIterator[bytes]) -> bool:
        stopping = asyncio.create_task(self._stop.wait())
        is_whole = False
        try:
            while not (is_whole or self._stop.is_set()):
                following = asyncio.ensure_future(anext(pieces, b""))
                await asyncio.wait([stopping, following], return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                elif piece := following.result():
                    self._sent.append(len(piece) + (self._sent[-1] if self._sent else 0))
                    await session.send(piece)
                else:
                    is_whole = True
        finally:
            stopping.cancel()
        await session.finish()
        return is_whole

    async def _receive(self, session: Session) -> None:
        async def take() -> None:
            async for event in session.events():
                self._display.event(self.source, event)
                if isinstance(event, Segment):
                    self.segments.append(event)
                    if event.chunk_index < len(self._sent):
                        self._display.recognised(self.source, self._sent[event.chunk_index])

        taking = asyncio.create_task(take())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([taking, stopping], return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                await asyncio.wait([taking], timeout=INTERRUPTED_S_MAX)
            if taking.done():
                await taking
        finally:
            taking.cancel()
            stopping.cancel()
            await asyncio.gather(taking, stopping, return_exceptions=True)

    def _result(
        self, session: Session, is_whole: bool, took_s: float
    ) -> tuple[Result, dict[str, Any]]:
        final = session.final_result
        status: Status = "incomplete" if session.problems else "complete"
        if not is_whole or final is None:
            status = "interrupted"
        found = Result(
            source=self.source,
            status=status,
            text=final.text if final else "\n".join(s.text for s in self.segments),
            duration_s=final.duration_s if final else self._heard_s(),
            took_s=took_s,
            session_id=session.session_id,
            stored=final is not None and final.stored,
        )
        extra = {
            "file": self.source.name,
            "complete": status == "complete",
            "warnings": [*session.started.warnings, *(final.warnings if final else ())],
            "problems": [
                {"code": p.code, "message": p.message, "segment_index": p.segment_index}
                for p in session.problems
            ],
        }
        return found, extra

    def _heard_s(self) -> float:
        return self.segments[-1].end_ms / 1000 if self.segments else 0.0


class Command:
    """One run of the command over all sources."""

    def __init__(
        self,
        sources: list[Source],
        options: Options,
        form: Format,
        paths: list[Path | None],
        display: Display,
        console: Console,
        is_several: bool,
    ) -> None:
        self.results: dict[int, Result] = {}
        self._is_several = is_several
        """Whether several sources were named, including any that do not exist."""
        self._sources = sources
        self._options = options
        self._form = form
        self._paths = paths
        self._display = display
        self._console = console
        self._rest = Rest(options.url, options.token)
        self._stop = asyncio.Event()
        self._present: set[Transcription] = set()
        self._warnings: set[str] = set()
        self._contacted = False
        self._hopeless = False
        self._bodies: dict[int, str] = {}
        """Transcripts for standard output; those before the first gap have been written."""
        self._written = 0

    async def run(self, jobs: int) -> list[Result]:
        """Transcribe all sources, up to ``jobs`` at once. The first Ctrl-C ends the audio, and its
        text is still written; the second ends the program."""
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            self._stop.set()
            loop.remove_signal_handler(signal.SIGINT)

        with contextlib.suppress(NotImplementedError):  # No signal handlers on Windows.
            loop.add_signal_handler(signal.SIGINT, interrupt)
        waiting = iter(range(len(self._sources)))

        async def work() -> None:
            for number in waiting:
                if self._stop.is_set() or self._hopeless:
                    return
                await self._one(number)

        await asyncio.gather(*(work() for _ in range(min(jobs, len(self._sources)))))
        return [self.results[number] for number in sorted(self.results)]

    @property
    def is_cut_short(self) -> bool:
        """Whether Ctrl-C kept some sources from being tried."""
        return self._stop.is_set() and len(self.results) < len(self._sources)

    async def _one(self, number: int) -> None:
        source = self._sources[number]
        try:
            found, extra = await self._admitted(source)
            body = await self._body(found, extra)
            self._write(number, found, body)
        except (SessionError, OSError, ValueError, audio.UnknownDurationError) as error:
            status: Status = "busy" if isinstance(error, ServerBusyError) else "failed"
            message = explain(error)
            if isinstance(error, audio.UnknownDurationError):
                message = f"{error}: {UNKNOWN_DURATION}"
            is_server = isinstance(error, RefusedError | UnreachableError)
            if not (is_server and self._hopeless):  # Printed once.
                is_named = len(self._sources) == 1 or message.startswith(f"{source.name}: ")
                name = "" if is_named or is_server else f"{source.name}: "
                print_error(self._console, name + message)
            self._hopeless = self._hopeless or is_server
            found = Result(source=source, status=status, error=message)
            if self._form == "json" and self._paths[number] is None:
                self._print(number, self._json({"file": source.name, "error": message}))
            else:
                self._print(number, "")
        self.results[number] = found
        self._display.end(source)

    async def _admitted(self, source: Source) -> tuple[Result, dict[str, Any]]:
        """Transcribe ``source``, once a busy server has room. While it is busy with other sources
        of this command, it will have."""
        deadline_s = time.monotonic() + self._options.wait_s
        while True:
            work = Transcription(source, self._options, self._display, self._stop)
            self._present.add(work)
            try:
                limit_s = OPEN_TIMEOUT_S if self._contacted else CONTACT_S
                found = await work.run(limit_s, self._warn)
            except ServerBusyError as error:
                self._contacted = True
                pause_s = error.retry_after_s or BUSY_PAUSE_S
                if any(other.is_admitted for other in self._present - {work}):
                    deadline_s = time.monotonic() + pause_s + self._options.wait_s
                if time.monotonic() + pause_s > deadline_s or self._stop.is_set():
                    raise
                self._warn(f"the server is busy: {error}; waiting")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause_s)
            else:
                self._contacted = True
                return found
            finally:
                self._present.discard(work)

    def _warn(self, warning: str) -> None:
        if warning not in self._warnings:
            self._warnings.add(warning)
            self._console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)

    async def _body(self, found: Result, extra: dict[str, Any]) -> str:
        """Return the transcript in its format. The server writes all but plain text."""
        if self._form == "txt":
            return found.text + "\n"
        deadline_s = time.monotonic() + STORED_S_MAX
        while True:
            try:
                made = await asyncio.to_thread(
                    outputs.transcript, self._rest, found.session_id, self._form, extra
                )
            except RefusedError as error:
                if error.status not in (404, 503) or time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(STORED_PAUSE_S)
            else:
                return made if self._form != "json" else self._json(json.loads(made))

    def _json(self, fields: dict[str, Any]) -> str:
        """One object, or a line of JSON Lines if several go to standard output."""
        return outputs.as_json(fields, is_line=self._is_several and self._paths[0] is None)

    def _write(self, number: int, found: Result, body: str) -> None:
        path = self._paths[number]
        if found.status == "interrupted":
            self._console.print(
                Text(
                    f"interrupted: {found.source.name}: the text is partial, of the first "
                    f"{found.duration_s:.1f} s",
                    style="yellow",
                ),
                soft_wrap=True,
            )
        if path is None:
            self._print(number, body)
            return
        if found.status == "interrupted":
            path = path.with_name(f"{path.stem}.partial{path.suffix}")
        try:
            path.write_text(body, encoding="utf-8")
        except OSError as error:  # The disk is full, say.
            kept = f"; asr history export {found.session_id} has the text" if found.stored else ""
            raise OSError(error.errno, f"{error.strerror}{kept}", str(path)) from error

    def _print(self, number: int, body: str) -> None:
        """Write transcripts to standard output in the order of the sources."""
        self._bodies[number] = body
        while self._written in self._bodies:
            _put(self._bodies.pop(self._written))
            self._written += 1

    def print_rest(self) -> None:
        """Write the transcripts that wait for sources that were not tried."""
        for number in sorted(self._bodies):
            _put(self._bodies.pop(number))


def _put(text: str) -> None:
    """Write to standard output. If that fails, end the command: later texts would be lost, too."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Otherwise Python flushes the buffer at exit, and fails with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"standard output: {error.strerror}")


def split_hotwords(text: str) -> tuple[str, ...]:
    """Split at commas if there are any, so that a hotword can hold a space; or else at spaces."""
    words = re.split("[,，]", text) if re.search("[,，]", text) else text.split()
    return tuple(word.strip() for word in words if word.strip())


def exit_code(results: list[Result], *, is_cut_short: bool, is_some_missing: bool) -> int:
    """Return the exit code of the command, see its help."""
    statuses = {result.status for result in results}
    if is_cut_short or "interrupted" in statuses:
        return EXIT_INTERRUPTED
    if is_some_missing or statuses & {"failed", "incomplete"}:
        return EXIT_FAILURE
    return EXIT_BUSY if "busy" in statuses else EXIT_OK


def transcribe_all(
    names: list[str],
    options: Options,
    wanted: Format | None,
    output: str | None,
    jobs: int,
    *,
    quiet: bool,
) -> int:
    """Transcribe the sources of ``names``, and return the exit code."""
    console = Console(stderr=True, highlight=False)
    sources, errors = expand(names)
    for message in errors.values():
        print_error(console, message)
    try:
        form = outputs.format_of(wanted, output)
        paths = outputs.paths(sources, output, form) if sources else []
    except (OutputError, OSError) as error:
        fail(explain(error), EXIT_USAGE)
    is_several = len(sources) + len(errors) > 1
    if form == "json" and output in (None, outputs.STDOUT):
        for name, message in errors.items():
            _put(outputs.as_json({"file": name, "error": message}, is_line=is_several))
    if not sources:
        return EXIT_FAILURE
    is_spoken = len(sources) == 1 and (options.realtime or not sources[0].is_file) and not quiet
    display: Display = Spoken(console) if is_spoken else Bars(console, sources, quiet=quiet)

    async def run() -> tuple[Command, list[Result]]:
        command = Command(sources, options, form, paths, display, console, is_several)
        with display:
            return command, await command.run(jobs)

    try:
        command, results = asyncio.run(run())
    except KeyboardInterrupt:
        print_error(console, "interrupted twice: no text of the sources in work")
        return EXIT_INTERRUPTED
    except ValueError as error:  # The address.
        fail(str(error), EXIT_USAGE)
    command.print_rest()
    if not quiet and any(result.session_id for result in results):
        console.print(summary(results))
    untried = len(sources) - len(results)
    if untried:
        print_error(console, f"{untried} of {len(sources)} sources were not tried")
    return exit_code(results, is_cut_short=command.is_cut_short, is_some_missing=bool(errors))


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Audio or video files, directories, patterns, HTTP URLs, or - for standard input.",
    ),
]
Output = Annotated[
    str | None, typer.Option("-o", "--output", help="File, or directory for several sources.")
]
Language = Annotated[str | None, typer.Option(help="Language, such as zh or en.")]
Model = Annotated[str | None, typer.Option(help="Name of one of the server's models.")]
Hotwords = Annotated[
    str,
    typer.Option(help="Words that the model should prefer, separated by commas or spaces."),
]
Speakers = Annotated[
    bool, typer.Option("--speakers", help="Tell speakers apart, if the server can.")
]
User = Annotated[str | None, typer.Option(help="Name stored with the sessions.")]
Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, max=64, help="Sources at the same time.")]
Realtime = Annotated[
    bool, typer.Option("--realtime", help="Send files at the pace of speech, not at once.")
]
Wait = Annotated[
    float, typer.Option("--wait", min=0, help="How long to wait for a busy server, in s.")
]
ServerMode = Annotated[Mode, typer.Option(help="How the server reads chunks.")]
ChunkMs = Annotated[
    int, typer.Option(min=10, max=10_000, help="Audio in a chunk with --realtime, in ms.")
]
Rate = Annotated[
    int, typer.Option("--rate", min=8_000, max=48_000, help="Sample rate of raw PCM, in Hz.")
]
Partials = Annotated[
    bool, typer.Option(help="Show text while it is being spoken (- and --realtime).")
]
Resume = Annotated[bool, typer.Option(help="Resume after a lost connection.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show errors and warnings only.")]


def transcribe(
    sources: Sources,
    form: Form = None,
    output: Output = None,
    as_json: Json = False,
    language: Language = None,
    model: Model = None,
    hotwords: Hotwords = "",
    speakers: Speakers = False,
    user: User = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    jobs: Jobs = 1,
    realtime: Realtime = False,
    wait_s: Wait = 30.0,
    mode: ServerMode = "auto",
    chunk_ms: ChunkMs = 100,
    rate_hz: Rate = 16_000,
    partials: Partials = True,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Transcribe audio and video files, standard input or URLs.

    Texts go to standard output or to -o, everything else to standard error. SRT, VTT and JSON are
    written by the server, from the stored session. Ctrl-C ends the audio and still writes the text
    of what was sent, with -o into NAME.partial.FORMAT.

    \b
    Exit codes:
      0    every text is complete
      1    a source failed, or a part of its text is missing
      2    wrong usage
      75   the server is busy, try again later
      130  interrupted: the text is partial

    \b
    Examples:
      asr transcribe speech.wav
      asr transcribe talk.mp4 -o talk.srt
      asr transcribe recordings/ -f vtt -o subtitles/ -j 4
      asr transcribe "**/*.mp3" --language zh --hotwords "魔搭 达摩院" --json > texts.jsonl
      arecord -f S16_LE -r 16000 | asr transcribe -
      asr transcribe --url https://asr.example.com https://example.com/talk.mp3
    """
    if as_json and form not in (None, "json"):
        fail(f"--json is -f json: it cannot be -f {form}, too", EXIT_USAGE)
    options = Options(
        url=url,
        token=token,
        model=model,
        language=language,
        hotwords=split_hotwords(hotwords),
        speakers=speakers,
        user=user,
        mode=mode,
        rate_hz=rate_hz,
        realtime=realtime,
        chunk_ms=chunk_ms,
        partials=partials,
        resume=resume,
        wait_s=wait_s,
    )
    wanted = "json" if as_json else form
    raise typer.Exit(transcribe_all(sources, options, wanted, output, jobs, quiet=quiet))
