"""Commands that ``asr`` has in a checkout of the server, besides those of the client."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

import typer

COMMANDS: Final = {
    "serve": ("tools.cli.serve", "Start a complete system on this machine."),
    "models": ("tools.cli.models", "List, pull and remove models."),
    "token": ("tools.cli.auth_tokens", "Add, list and remove access tokens."),
    "keys": ("tools.cli.keys", "Generate the keys of a bus that other hosts can reach."),
    "loadtest": ("tools.lab.loadtest.__main__", "Measure a system under verified sessions."),
}
"""Name of each command: its module, and its line in ``asr --help``."""


def add_to(app: typer.Typer) -> None:
    """Register the commands. A command's module is imported when the command is run."""
    for name, (module, summary) in COMMANDS.items():
        app.command(
            name,
            help=summary,
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_runner(module))


def _runner(module: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        importlib.import_module(module).app(context.args, prog_name=context.command_path)

    return run
