"""The directory of models on this machine (``ASR_MODEL_DIR``): one directory a model, which appears
complete, by a rename. Unfinished downloads, which can be continued, are under ``.partial``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from asr_worker.model_files.catalogue import Model, model_named

_PARTIAL = ".partial"


def size_bytes(directory: Path) -> int:
    """Size of all files in ``directory``, which another program may move and delete meanwhile."""
    total = 0
    # Path.rglob() fails if a folder is deleted while it looks.
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(folder, name).stat().st_size
    return total


class ModelCache:
    """The models under ``root``, which need not exist."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path_of(self, model: Model) -> Path:
        """Directory of ``model``, whether it is there or not."""
        return self.root / model.name

    def find(self, name: str) -> Path | None:
        """The directory of the model ``name``; None if it is not here. Raises UnknownModelError."""
        path = self.path_of(model_named(name))
        return path if path.is_dir() else None

    def names(self) -> list[str]:
        """Names of the models that are here, sorted."""
        found = []
        for top in self._directories(self.root):
            if top.name == _PARTIAL:
                continue
            inner = self._directories(top)
            # The directory of an owner holds directories only.
            if len(inner) == len(list(top.iterdir())):
                found += [f"{top.name}/{path.name}" for path in inner]
            else:
                found.append(top.name)
        return sorted(found)

    def remove(self, model: Model) -> bool:
        """Delete ``model`` and its unfinished downloads; return whether anything was deleted."""
        found = False
        with self.locked(model, lambda: None) as partial:
            path = self.path_of(model)
            if path.is_dir():
                # By a rename first: a half-deleted model must not look like one.
                path.rename(partial / "removed")
                found = True
            found |= any(partial.iterdir())
            shutil.rmtree(partial)
        return found

    @contextlib.contextmanager
    def locked(self, model: Model, waiting: Callable[[], None]) -> Iterator[Path]:
        """Hold the lock of ``model``, and yield the directory of its unfinished files. ``waiting``
        is called if another process holds it."""
        partial = self.root / _PARTIAL / model.name.replace("/", "--")
        partial.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(partial.with_name(f"{partial.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            partial.mkdir(exist_ok=True)
            yield partial
        finally:
            os.close(lock)

    def install(self, model: Model, made: Path) -> Path:
        """Move the complete directory ``made`` to its place, and return that. Hold the lock."""
        for file in made.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written)  # After a power failure no file may be empty.
        path = self.path_of(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.rename(path)
        return path

    @staticmethod
    def _directories(path: Path) -> list[Path]:
        return [each for each in path.iterdir() if each.is_dir()] if path.is_dir() else []
