"""Options that the commands share, under the same names everywhere."""

from __future__ import annotations

from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from asr_client.client import DEFAULT_URL, TOKEN_VARIABLE
from asr_client.exceptions import RefusedError, ServerBusyError, UnreachableError
from asr_client.outputs import Format

URL_VARIABLE: Final = "ASR_URL"
EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
EXIT_BUSY: Final = 75
"""EX_TEMPFAIL of BSD ``sysexits.h``."""
EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as in shells."""

Url = Annotated[
    str,
    typer.Option(envvar=URL_VARIABLE, help="Address of the server: HOST:PORT, http://… or ws://…"),
]
Token = Annotated[
    str | None,
    typer.Option(
        envvar=TOKEN_VARIABLE,
        help="Access token. Prefer the variable: other users can read arguments.",
    ),
]
Form = Annotated[
    Format | None, typer.Option("-f", "--format", help="By default as -o ends, or else txt.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_error(console: Console, message: str) -> None:
    console.print(Text(f"error: {message}", style="red"), soft_wrap=True)


def fail(message: str, code: int = EXIT_FAILURE) -> NoReturn:
    """Print one line on standard error, and end the command."""
    print_error(Console(stderr=True, highlight=False), message)
    raise typer.Exit(code)


def explain(error: Exception) -> str:
    """Return one line with the failure and its remedy."""
    if isinstance(error, ServerBusyError):
        after = f"; try again in {error.retry_after_s:g} s" if error.retry_after_s else ""
        return f"the server is busy: {error}{after}"
    if isinstance(error, RefusedError):
        if error.status == 401 and "expired" in str(error):
            return f"{error}: set another one in {TOKEN_VARIABLE}, or pass --token"
        if error.status == 401:
            return (
                "the server requires an access token, and accepts none that is missing or wrong: "
                f"set {TOKEN_VARIABLE} or pass --token"
            )
        message = f"the server refuses with {error.status}: {error}"
        if error.status == 404 or error.status < 400:
            return f"{message}; check --url, as in {DEFAULT_URL}"
        return message
    if isinstance(error, UnreachableError):
        return f"{error}; start the server, or name another one with --url or {URL_VARIABLE}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)
