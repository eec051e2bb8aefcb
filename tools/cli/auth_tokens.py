"""``asr token``: add, list and remove access tokens of the gateway. Only hashes are stored."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from asr_client.options import Json, fail
from gateway.web import auth_tokens
from wire.records import DEFAULT_TENANT

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Add, list and remove access tokens of the gateway.",
)
File = Annotated[
    Path, typer.Option(envvar="AUTH_TOKENS_FILE", help="File of the tokens; add creates it.")
]
Name = Annotated[str, typer.Argument(help="Name of the token's owner, shown in logs.")]


@app.command()
def add(
    name: Name,
    file: File,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What it allows: {', '.join(auth_tokens.SCOPES)}; may be repeated. Without it: "
            "everything."
        ),
    ] = None,
    tenant: Annotated[
        str, typer.Option(help="Whose sessions it uses; other tenants' are unknown to it.")
    ] = DEFAULT_TENANT,
    expires: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", auth_tokens.EXPIRES_FORMAT],
            help="From this time on (UTC) it is refused. Without it: never.",
        ),
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(help="WebSockets and files at a time. Without it: no limit.")
    ] = None,
    audio_s_per_day: Annotated[
        int | None, typer.Option(help="Seconds of audio a day (UTC). Without it: no limit.")
    ] = None,
    requests_per_s: Annotated[
        int | None, typer.Option(help="HTTP requests a second. Without it: no limit.")
    ] = None,
) -> None:
    """Create a token and print it. It cannot be printed again: only its hash is stored.

    \b
    Example:
      AUTH_TOKENS_FILE=tokens asr token add anna --scope transcribe --tenant acme
    """
    known = _read(file) if os.path.lexists(file) else {}
    if not auth_tokens.NAME.fullmatch(name):
        fail(f"no name: {name!r}; a name is 1 to 64 letters, digits, dots, hyphens or underscores")
    if name in known:
        fail(f"{name} has a token: remove it first (asr token remove {name}), or use another name")
    if len(known) >= auth_tokens.TOKENS_MAX:
        fail(f"{file} holds {auth_tokens.TOKENS_MAX} tokens, the maximum: remove one first")
    until = None if expires is None else expires.replace(tzinfo=UTC)
    if until is not None and until <= datetime.now(UTC):
        fail(f"--expires: {until:{auth_tokens.EXPIRES_FORMAT}} is past")
    token = auth_tokens.new_token()
    try:
        access = auth_tokens.Access(
            digest=auth_tokens.hash_of(token),
            scopes=auth_tokens.scopes_of(",".join(scope or auth_tokens.SCOPES)),
            tenant=auth_tokens.tenant_of(tenant),
            expires=until,
            limits=auth_tokens.limits_of(
                {
                    name: limit
                    for name, limit in (
                        ("sessions", sessions),
                        ("audio_s_per_day", audio_s_per_day),
                        ("requests_per_s", requests_per_s),
                    )
                    if limit is not None
                }
            ),
        )
    except ValueError as error:
        fail(str(error))
    _write(file, {**known, name: access})
    print(token)


@app.command("list")
def show(file: File, as_json: Json = False) -> None:
    """Print the names of all tokens, with the limits of each."""
    known = _read(file)
    if as_json:
        print(json.dumps([_described(name, access) for name, access in known.items()]))
        return
    for name, access in known.items():
        print(" ".join([name, *access.fields()]))


def _described(name: str, access: auth_tokens.Access) -> dict[str, Any]:
    expires = access.expires
    return {
        "name": name,
        "scopes": [scope for scope in auth_tokens.SCOPES if scope in access.scopes],
        "tenant": access.tenant,
        "expires": None if expires is None else expires.strftime(auth_tokens.EXPIRES_FORMAT),
        **asdict(access.limits),
    }


@app.command()
def remove(name: Name, file: File) -> None:
    """Remove a token. Gateways refuse it within a second; its open sessions continue."""
    known = _read(file)
    if name not in known:
        fail(f"{name} has no token in {file}")
    _write(file, {other: access for other, access in known.items() if other != name})


def _read(file: Path) -> dict[str, auth_tokens.Access]:
    try:
        return auth_tokens.read(file)
    except auth_tokens.AuthTokensError as error:
        fail(str(error))


def _write(file: Path, known: dict[str, auth_tokens.Access]) -> None:
    try:
        auth_tokens.write(file, known)
    except OSError as error:
        fail(f"{file}: {error.strerror}")


if __name__ == "__main__":
    app()
