"""``asr token``: add, list and remove access tokens of the gateway. Only hashes are stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from gateway.web import auth_tokens

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Add, list and remove access tokens of the gateway.",
)
console = Console(highlight=False, stderr=True)

File = Annotated[
    Path, typer.Option(envvar="AUTH_TOKENS_FILE", help="File of the tokens; add creates it.")
]
Name = Annotated[str, typer.Argument(help="Name of the token's owner, shown in logs.")]


@app.command()
def add(name: Name, file: File) -> None:
    """Create a token and print it. It cannot be printed again: only its hash is stored."""
    known = _read(file) if os.path.lexists(file) else {}
    if not auth_tokens.NAME.fullmatch(name):
        _fail("a name is 1 to 64 letters, digits, dots, hyphens or underscores")
    if name in known:
        _fail(f"{name} has a token: remove it first (asr token remove {name}), or use another name")
    if len(known) >= auth_tokens.TOKENS_MAX:
        _fail(f"{file} holds {auth_tokens.TOKENS_MAX} tokens, the maximum: remove one first")
    token = auth_tokens.new_token()
    _write(file, {**known, name: auth_tokens.hash_of(token)})
    print(token)


@app.command("list")
def show(file: File) -> None:
    """Print the names of all tokens."""
    for name in _read(file):
        print(name)


@app.command()
def remove(name: Name, file: File) -> None:
    """Remove a token. Gateways refuse it within a second; its open sessions continue."""
    known = _read(file)
    if name not in known:
        _fail(f"{name} has no token in {file}")
    _write(file, {other: digest for other, digest in known.items() if other != name})


def _read(file: Path) -> dict[str, bytes]:
    try:
        return auth_tokens.read(file)
    except auth_tokens.AuthTokensError as error:
        _fail(str(error))


def _write(file: Path, known: dict[str, bytes]) -> None:
    try:
        auth_tokens.write(file, known)
    except OSError as error:
        _fail(f"{file}: {error.strerror}")


def _fail(message: str) -> NoReturn:
    console.print(f"error: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
