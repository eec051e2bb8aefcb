"""The data directory: made private, and held by one instance at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from runtime import settings

LOCK_NAME = "embedded.lock"
LOG_BYTES_MAX = 8 << 20
"""A server's log file larger than this is set aside as ``.1`` at that server's next start."""


class EmbeddedError(Exception):
    """A service cannot be run here; the message says what to change."""


class DataDirectory:
    """Paths under ``DATA_DIR``. Call ``open`` before use; the lock lasts as long as the process."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir.absolute()
        self.sockets = settings.embedded_socket_dir(data_dir)
        self._lock_fd: int | None = None

    def open(self) -> None:
        """Create what is missing and take the lock.

        Raises:
            EmbeddedError: if another instance runs here or the directory cannot be used.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            self._make_private(self.sockets)
        except OSError as error:
            raise EmbeddedError(f"DATA_DIR {self.root}: {error.strerror or error}") from error

    def close(self) -> None:
        """Let another instance in, and leave nothing outside ``DATA_DIR``."""
        if self._lock_fd is None:
            return
        if self.root not in self.sockets.parents:
            with contextlib.suppress(OSError):  # not empty: a server was killed
                self.sockets.rmdir()
        os.close(self._lock_fd)
        self._lock_fd = None

    def log_file(self, name: str) -> Path:
        """Path of a server's log, an overlong one set aside first."""
        path = self.root / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        return path

    def _take_lock(self) -> None:
        # The kernel frees a flock when its holder dies in whatever way, so kill -9 leaves none.
        lock_fd = os.open(self.root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock_fd, 32).decode(errors="replace").strip() or "?"
            os.close(lock_fd)
            raise EmbeddedError(
                f"the embedded services already run on {self.root} (pid {holder}); "
                "stop them or set another DATA_DIR"
            ) from None
        os.ftruncate(lock_fd, 0)
        os.write(lock_fd, f"{os.getpid()}\n".encode())
        self._lock_fd = lock_fd

    @staticmethod
    def _make_private(path: Path) -> None:
        # Whoever may enter this directory is a superuser of both servers: they ask for no
        # password. Under /tmp somebody else may have made it first.
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise EmbeddedError(f"{path} is not a directory of this user")
        path.chmod(0o700)
