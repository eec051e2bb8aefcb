"""``asr keys DIRECTORY``: generate the keys of a bus that other hosts can reach."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from asr_client.options import fail
from wire import keys

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Directory = Annotated[
    Path, typer.Argument(help="Directory of the keys; created if it does not exist.")
]


HostName = Annotated[
    str, typer.Option("--host", help="Add a key for this host, to a directory that has keys.")
]
HostRole = Annotated[keys.Role, typer.Option("--role", help="Role of the host's key.")]


@app.command()
def main(directory: Directory, host: HostName = "", role: HostRole = "worker") -> None:
    """Generate a CURVE key pair for each role: broker, gateway, worker and persistence. With --host
    add one more key for one role, which can be removed without the others.

    \b
    Examples:
      asr keys keys
      asr keys keys --host gpu-1 --role worker
    """
    console = Console(highlight=False)
    try:
        if host:
            own = keys.generate_for_host(directory, role, host)
            console.print(f"Move {own} to {host}, as its BUS_KEYS_DIR.", markup=False)
            console.print(
                f"The broker allows the key while {role}.d/{host}.public is in its BUS_KEYS_DIR.",
                markup=False,
            )
            return
        made = keys.generate(directory)
    except (keys.KeysError, OSError) as error:
        fail(str(error))
    for path in made:
        console.print(str(path), markup=False)
    console.print(
        "Copy to the broker's host: broker.secret and all .public files. Copy to other hosts:\n"
        "broker.public and the two files of the role. Set BUS_KEYS_DIR on each host."
    )


if __name__ == "__main__":
    app()
