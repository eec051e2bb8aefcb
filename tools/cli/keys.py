"""``asr keys DIRECTORY``: generate the keys of a bus that other hosts can reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from wire import keys

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Directory = Annotated[
    Path, typer.Argument(help="Directory of the keys; created if it does not exist.")
]


@app.command()
def main(directory: Directory) -> None:
    """Generate a CURVE key pair for each role: broker, gateway, worker and persistence."""
    console = Console(highlight=False)
    try:
        made = keys.generate(directory)
    except (keys.KeysError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    for path in made:
        console.print(str(path), markup=False)
    console.print(
        "Copy to the broker's host: broker.secret and all .public files. Copy to other hosts:\n"
        "broker.public and the two files of the role. Set BUS_KEYS_DIR on each host."
    )


if __name__ == "__main__":
    app()
