"""``python -m tools.cli.keys DIRECTORY``: keys for a bus that other hosts can reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wire import keys

SessionTable = Annotated[Path, typer.Argument(help="Made if it is not there; BUS_KEYS_DIR.")]


def main(directory: SessionTable) -> None:
    """Make a CURVE key pair for the broker, gateways, workers and persistence."""
    console = Console(highlight=False)
    try:
        made = keys.generate(directory)
    except (keys.KeysError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    for path in made:
        console.print(str(path), markup=False)
    console.print(
        "The broker's host needs broker.secret and every .public; any other broker.public\n"
        "and the two files of its role. Set BUS_KEYS_DIR on each."
    )


if __name__ == "__main__":
    typer.run(main)
