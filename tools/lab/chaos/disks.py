"""Small disks that can be filled: tmpfs, in a mount namespace that ends with this process.

They need root, and a kernel that allows root to mount. Elsewhere the faults that use them are
skipped.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
FILLER: Final = "filler"
BLOCK_BYTES: Final = 1 << 20


class NoSmallDisksError(Exception):
    """This host does not allow mounting; the message has the reason."""


def enter_namespace() -> None:
    """Give this thread, and the processes it starts from now on, mounts of their own.

    Raises:
        NoSmallDisksError: if this host does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise NoSmallDisksError(f"unshare: {os.strerror(ctypes.get_errno())}")
    # Otherwise our mounts would propagate to the parent namespace.
    _mount("--make-rprivate", "/")


def mount(path: Path, bytes_max: int) -> None:
    """Mount an empty disk at ``path``.

    Raises:
        NoSmallDisksError: if this host does not allow it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={bytes_max},mode=0700", "tmpfs", str(path))


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoSmallDisksError(f"mount: {error.strerror}") from error
    if done.returncode:
        raise NoSmallDisksError(done.stderr.strip() or f"mount ended with {done.returncode}")


def fill(path: Path) -> int:
    """Fill the disk to the last byte; return the number of bytes written."""
    written = 0
    with (path / FILLER).open("wb", buffering=0) as filler:
        for size in (BLOCK_BYTES, 4_096, 1):
            with contextlib.suppress(OSError):  # Full, as intended.
                while True:
                    written += filler.write(bytes(size))
    return written


def free(path: Path) -> None:
    (path / FILLER).unlink(missing_ok=True)
