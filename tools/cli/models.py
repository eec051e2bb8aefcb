"""``asr models``: list, pull and remove the models on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from asr_client.options import Json, fail
from asr_worker.model_files.cache import size_bytes
from asr_worker.model_files.catalogue import MODELS, UnknownModelError, model_named
from asr_worker.model_files.pull import PullError, pull
from asr_worker.settings import ModelFilesSettings
from runtime import exit_codes, settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, pull and remove the models on this machine (ASR_MODEL_DIR).",
)
console = Console(highlight=False, stderr=True)

Names = Annotated[
    list[str], typer.Argument(help="Models of `asr models list`, or owner/repository on a hub.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Do not print the directories.")]


class ShownProgress:
    """A progress bar on standard error, one for each step."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._task = shown.add_task("", total=None, visible=False)

    def step(self, what: str) -> None:
        self._shown.reset(self._task, description=what, total=None, visible=True)
        if not self._shown.console.is_terminal:
            self._shown.console.print(what, markup=False)

    def bytes_done(self, done: int, total: int) -> None:
        self._shown.update(self._task, completed=done, total=total)


@contextmanager
def shown_progress() -> Iterator[ShownProgress]:
    """Progress on standard error: bars on a terminal, else a line for each step."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown:
        yield ShownProgress(shown)


@app.command("list")
def show(as_json: Json = False) -> None:
    """List the known models, and those on this machine."""
    cache = settings.load(ModelFilesSettings).model_cache()
    here = cache.names()
    known = {model.name: model for model in MODELS}
    # Repositories of a hub that were pulled under their own names.
    known |= {name: model_named(name) for name in here if name not in known and "/" in name}
    if as_json:
        rows = [
            {
                "name": name,
                "languages": model.languages,
                "gives": model.gives,
                "download_mb": model.megabytes or None,
                "path": str(cache.root / name) if name in here else None,
            }
            for name, model in known.items()
        ]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "languages", "gives", "download", "on this machine"):
        table.add_column(heading, no_wrap=heading == "model", overflow="fold")
    for name, model in known.items():
        size = f"{model.megabytes} MB" if model.megabytes else ""
        disk = f"{size_bytes(cache.root / name) / 1e6:.0f} MB" if name in here else ""
        table.add_row(name, model.languages, model.gives, size, disk)
    Console(highlight=False).print(table)


@app.command("pull")
def fetch(names: Names, as_json: Json = False, quiet: Quiet = False) -> None:
    """Fetch models from ASR_MODEL_SOURCES, check and convert them. Models that are here are kept.

    \b
    Examples:
      asr models pull whisper-base
      asr models pull paraformer-zh ct-punc
    """
    values = settings.load(ModelFilesSettings)
    cache, sources = values.model_cache(), values.model_sources()
    found = {}
    try:
        with shown_progress() as progress:
            for name in names:
                found[name] = str(pull(name, cache, sources, progress))
    except UnknownModelError as error:
        fail(str(error), exit_codes.CONFIG)
    except PullError as error:
        fail(str(error), error.code)
    if not quiet:
        print(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(found.values()))


@app.command("rm")
def remove(names: Names) -> None:
    """Delete models, and their unfinished downloads."""
    cache = settings.load(ModelFilesSettings).model_cache()
    for name in names:
        try:
            found = cache.remove(model_named(name))
        except UnknownModelError as error:
            fail(str(error), exit_codes.CONFIG)
        except OSError as error:
            fail(f"{name}: {error.strerror}", exit_codes.FAILURE)
        if not found:
            fail(f"{name} is not in {cache.root}", exit_codes.FAILURE)


if __name__ == "__main__":
    app()
