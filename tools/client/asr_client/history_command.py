"""``asr history``: the stored sessions of a server, over REST."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from asr_client import outputs
from asr_client.client import DEFAULT_URL
from asr_client.display import segment_line
from asr_client.exceptions import RefusedError, SessionError
from asr_client.options import EXIT_USAGE, Form, Json, Token, Url, explain, fail
from asr_client.outputs import OutputError
from asr_client.rest import Rest, session_path
from asr_client.sources import Source

TEXT_CHARS_MAX: Final = 100
PATH: Final = "/api/v1/history"
PAGE_ROWS: Final = 100
"""Sessions of one request."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, search, show, export and delete stored sessions.",
)

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Sessions, by their ids.")]
Limit = Annotated[int, typer.Option("-n", "--limit", min=1, help="Number of sessions.")]
Since = Annotated[
    datetime | None, typer.Option(help="Sessions that began then or later, in local time.")
]
Until = Annotated[datetime | None, typer.Option(help="Sessions that began before.")]
User = Annotated[str | None, typer.Option(help="Sessions of this user.")]
Status = Annotated[str | None, typer.Option(help="Sessions of this status, such as completed.")]
Model = Annotated[str | None, typer.Option(help="Sessions of this model.")]


@contextmanager
def server(url: str, token: str | None) -> Iterator[Rest]:
    """The server of the commands. Its errors end the program in one line."""
    try:
        yield Rest(url, token)
    except (SessionError, OSError) as error:
        fail(explain(error))
    except ValueError as error:  # The address, or options that do not fit each other.
        fail(str(error), EXIT_USAGE)


@app.command("search", hidden=True)
@app.command("list")
def show_list(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORD", help="Only sessions whose text has all these words."),
    ] = None,
    limit: Limit = 20,
    since: Since = None,
    until: Until = None,
    user: User = None,
    status: Status = None,
    model: Model = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """List or search the sessions, newest first.

    \b
    Examples:
      asr history list
      asr history list -n 100 --user anna --since 2026-01-31 --json
      asr history list weather tomorrow
      asr history list 天气 --since 2026-01-31
    """
    query = {
        "q": " ".join(words or ()) or None,
        "since": since.astimezone().isoformat() if since else None,
        "until": until.astimezone().isoformat() if until else None,
        "user_id": user,
        "status": status,
        "model": model,
    }
    with server(url, token) as rest:
        _print_records(_records(rest, limit, query), as_json)


@app.command()
def show(
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session's id.")],
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Show a session: its utterances with their times.

    \b
    Examples:
      asr history show 5f0c2d1e-…
      asr history show 5f0c2d1e-… --json
    """
    with server(url, token) as rest:
        found = _session(rest, session_id)
        if as_json:
            sys.stdout.write(outputs.as_json(found))
            return
        console = Console(highlight=False)
        for name in ("session_id", "created_at", "status", "user_id", "model", "duration"):
            if found.get(name) not in (None, ""):
                console.print(Text(f"{name:<11} {found[name]}", style="dim"), soft_wrap=True)
        for segment in found["segments"]:
            start_ms, end_ms, text = segment["start_ms"], segment["end_ms"], segment["text"]
            line = segment_line(start_ms, end_ms, segment.get("speaker"), text or "")
            if problem := segment.get("error"):
                line += Text(f"{problem['code']}: {problem['message']}", style="red")
            console.print(line, soft_wrap=True)
        failed = sum(segment.get("error") is not None for segment in found["segments"])
        if failed:
            count = f"{failed} of {len(found['segments'])} utterances without text"
            console.print(Text(count, style="red"))
        elif found["segments"] and found.get("error"):
            console.print(Text(_incomplete(found), style="red"), soft_wrap=True)
        if not found["segments"]:
            console.print(Text(_why_without_text(found), style="dim"), soft_wrap=True)


@app.command()
def export(
    ids: Ids,
    form: Form = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="File, or directory for several sessions.")
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Write the transcripts of sessions as TXT, SRT, VTT or JSON.

    \b
    Examples:
      asr history export 5f0c2d1e-… -f srt
      asr history export 5f0c2d1e-… -o talk.vtt
      asr history export 5f0c2d1e-… 83a1b7c4-… -f srt -o subtitles/
    """
    with server(url, token) as rest:
        wanted = outputs.format_of(form, output)
        try:
            paths = outputs.paths([Source(session_id) for session_id in ids], output, wanted)
        except OutputError as error:
            fail(str(error), EXIT_USAGE)
        for session_id, path in zip(ids, paths, strict=True):
            try:
                text = outputs.transcript(rest, session_id, wanted, {})
            except RefusedError as error:
                raise _named(error, session_id) from error
            if path is None:
                sys.stdout.write(text)
            else:
                path.write_text(text, encoding="utf-8")


@app.command()
def delete(
    ids: Ids,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Delete sessions permanently.

    \b
    Examples:
      asr history delete 5f0c2d1e-…
      asr history delete --yes 5f0c2d1e-… 83a1b7c4-…
    """
    if not yes:
        what = f"session {ids[0]}" if len(ids) == 1 else f"{len(ids)} sessions"
        typer.confirm(f"Delete {what} permanently?", abort=True, err=True)
    with server(url, token) as rest:
        for session_id in ids:
            try:
                answer = json.loads(rest.delete(session_path(session_id)))
            except RefusedError as error:
                raise _named(error, session_id) from error
            done = "deleted" if answer.get("deleted") else "will be deleted"
            typer.echo(f"{session_id}: {done}")


def _session(rest: Rest, session_id: str) -> dict[str, Any]:
    try:
        return rest.get_json(session_path(session_id))
    except RefusedError as error:
        raise _named(error, session_id) from error


def _named(error: RefusedError, session_id: str) -> SessionError:
    """404 is not about the server's address here, but about the session."""
    if error.status in (404, 422):
        return SessionError(f"{session_id}: no such session")
    return error


def _records(rest: Rest, limit: int, query: dict[str, str | None]) -> list[dict[str, Any]]:
    """Return up to ``limit`` records, page by page.

    Raises:
        SessionError: As ``Rest.get_json``, or if the server would ignore the query.
    """
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(found) < limit:
        asked = {"limit": min(limit - len(found), PAGE_ROWS), "cursor": cursor, **query}
        page = rest.get_json(PATH, asked)
        if "next_cursor" not in page and any(query.values()):
            raise SessionError("the server's release has neither search nor filters")
        found += page["records"]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    return found[:limit]


def _print_records(records: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(outputs.as_json(records))
        return
    if not records:
        typer.echo("no session found", err=True)
    console = Console(highlight=False)
    for record in records:
        created = datetime.fromisoformat(record["created_at"]).astimezone()
        text = record.get("preview") or record.get("text") or ""
        head = Text(record["session_id"], style="cyan")
        head += Text(
            f"  {created:%Y-%m-%d %H:%M}  {record['duration']:.1f} s  {record['status']}  "
            f"{record['user_id']}".rstrip()
        )
        console.print(head, soft_wrap=True)
        shown = text if len(text) <= TEXT_CHARS_MAX else f"{text[: TEXT_CHARS_MAX - 1]}…"
        console.print(
            Text(f"    {shown or _why_without_text(record)}", style="dim"), soft_wrap=True
        )
        if shown and record.get("error"):
            console.print(Text(f"    {_incomplete(record)}", style="red"), soft_wrap=True)


def _incomplete(record: dict[str, Any]) -> str:
    """Why a part of the text is missing: the session's first error."""
    error = record["error"]
    return f"(incomplete: {error['code']}: {error['message']})"


def _why_without_text(record: dict[str, Any]) -> str:
    """The reason in brackets, as on the page, or the session's error."""
    if error := record.get("error"):
        return f"({error['code']}: {error['message']})"
    if record["status"] == "active":
        return "(still running)"
    if record["status"] != "completed" or record.get("segment_count"):
        return "(no text)"
    return "(no speech)" if record["duration"] else "(no audio)"
