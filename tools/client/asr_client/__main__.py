"""The command ``asr``, also ``python -m asr_client``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import typer

from asr_client.transcribe_command import transcribe

CHECKOUT = Path(__file__).resolve().parents[3]
"""Root of the server's repository, if this package is used from there and not from a wheel."""

app = typer.Typer(
    name="asr",
    help="Speech recognition from the command line.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _asr() -> None:
    """Without a callback, an app of one command would have no subcommands."""


def main() -> None:
    """Run the command. In a checkout, the server's commands are available, too."""
    app.command()(transcribe)
    if (CHECKOUT / "tools" / "cli" / "commands.py").is_file():
        sys.path.insert(0, str(CHECKOUT))
        importlib.import_module("tools.cli.commands").add_to(app)
    app(prog_name="asr")


if __name__ == "__main__":
    main()
