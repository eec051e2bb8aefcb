"""Files that appear under their names only when they are complete and on the disk, and that one
process has at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

TEMPORARY = ".tmp"
"""Suffix of a file while it is written."""
UNFINISHED_S_MAX = 3_600.0
"""A file that nothing was written to for this long was left by a killed process."""


def size_of(path: Path) -> int:
    """Return the file's size in bytes; 0 if another gateway has just removed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def locked(path: Path, mode: Literal["rb", "r+b"]) -> BinaryIO | None:
    """Return the opened and locked file; None if another process holds it or has removed it.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        file = path.open(mode)
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have removed it after we opened it and before we locked it.
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    file.close()
    return None


def remove_unfinished(directory: Path) -> None:
    """Remove the files that a killed process has left incomplete."""
    for path in directory.glob(f"*{TEMPORARY}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > UNFINISHED_S_MAX:
                path.unlink()


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file, for its user only, which replaces ``path`` at the end of the block. An error
    leaves ``path`` as it was.

    Raises:
        OSError: it cannot be written.
    """
    # root may write into a directory of another user, who could guess a name and put a link there.
    temporary = path.with_suffix(f".{secrets.token_hex(8)}{TEMPORARY}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The name is on the disk once its directory is.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
