"""The command ``asr``, also ``python -m asr_client``."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from asr_client import history_command
from asr_client.options import EXIT_FAILURE, fail
from asr_client.transcribe_command import transcribe

CHECKOUT: Final = Path(__file__).resolve().parents[3]
"""Root of the server's repository, if this package is used from there and not from a wheel."""
SERVER_COMMANDS: Final = {
    "serve": ("tools.cli.serve", "Start a complete system on this machine."),
    "models": ("tools.cli.models", "List, pull and remove models."),
    "token": ("tools.cli.auth_tokens", "Add, list and remove access tokens."),
    "keys": ("tools.cli.keys", "Generate the keys of a bus that other hosts can reach."),
    "loadtest": ("tools.lab.loadtest.__main__", "Measure a system under verified sessions."),
}
"""Commands that need the server's packages: the module of each, and its line in ``asr --help``."""


class Commands(TyperGroup):
    """The client's commands, and those of the server, whose modules are imported when needed."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in SERVER_COMMANDS:
            command = typer.main.get_command(_app_of(name))
        return name, command, rest


def _app_of(name: str) -> typer.Typer:
    """Return the app of a server's command; end the program in one line if it is not here."""
    module, _ = SERVER_COMMANDS[name]
    if not (CHECKOUT / "tools" / "cli").is_dir():
        _not_here(name, "only the client is installed")
    sys.path.insert(0, str(CHECKOUT))
    try:
        app: typer.Typer = importlib.import_module(module).app
    except ModuleNotFoundError as error:
        _not_here(name, f"{error.name} is not installed")
    except ImportError as error:
        # Such as a library on a volume that is mounted noexec: its message names the file.
        fail(f"asr {name}: a library of the server cannot be loaded: {error}", EXIT_FAILURE)
    return app


def _not_here(name: str, reason: str) -> NoReturn:
    fail(
        f"asr {name} needs the server's packages, and {reason}: use `asr` of a checkout of the "
        "server, after `make setup`",
        EXIT_FAILURE,
    )


app = typer.Typer(
    name="asr",
    cls=Commands,
    help="Speech recognition: a server's command line, and its client's.",
    epilog="asr COMMAND --help shows the options and examples of a command.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"asr {importlib.metadata.version('asr-pipeline-client')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options before a command."""


app.command()(transcribe)
app.add_typer(history_command.app, name="history")


def _add_server_command(name: str, summary: str) -> None:
    @app.command(name, help=summary)
    def never_called() -> None:
        raise AssertionError(f"{name} is resolved by its own module")


for _name, (_, _summary) in SERVER_COMMANDS.items():
    _add_server_command(_name, _summary)


def main() -> None:
    """Run the command."""
    app(prog_name="asr")


if __name__ == "__main__":
    main()
