"""The directory of a system's Unix sockets, which only its user can enter: the embedded servers
require no password, and the bus trusts every peer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

UNIX_SOCKET_PATH_BYTES_MAX = 107
"""Linux's limit on the path of a Unix socket (``man 7 unix``), less the terminating zero."""
LONGEST_NAME = ".s.PGSQL.5432.lock"
"""The longest name of a file in the directory."""


def run_directory(data_dir: Path) -> Path:
    """Return the directory of the sockets of the system in ``data_dir``, a function of that alone.
    If paths in ``data_dir`` would exceed the limit, it is under ``/tmp``, named after a hash."""
    absolute = data_dir.absolute()
    directory = absolute / "run"
    if len(os.fsencode(directory / LONGEST_NAME)) <= UNIX_SOCKET_PATH_BYTES_MAX:
        return directory
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]
    return Path("/tmp") / f"asr-{os.getuid()}-{digest}"


def make(data_dir: Path) -> Path:
    """Create the directory, closed to other users; return it.

    Raises:
        OSError: If it cannot be created, or is not a directory of this user.
    """
    data_dir.absolute().mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = run_directory(data_dir)
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    # Under /tmp another user may have created it first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{directory} is not a directory of this user")
    directory.chmod(0o700)
    return directory


def leave(data_dir: Path) -> None:
    """Remove the directory if it is outside ``data_dir`` and no socket is left in it."""
    directory = run_directory(data_dir)
    if data_dir.absolute() not in directory.parents:
        with contextlib.suppress(OSError):
            directory.rmdir()
