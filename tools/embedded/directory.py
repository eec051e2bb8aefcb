"""The data directory: private, and locked by one instance at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from runtime import run_directory

LOCK_NAME = "embedded.lock"
LOG_BYTES_MAX = 8 << 20
"""Size above which a server's log is renamed to ``.1`` at the server's next start."""


class EmbeddedError(Exception):
    """A server cannot be started; the message names the remedy."""


class DataDirectory:
    """Paths under ``DATA_DIR``. You must call ``open()`` before use. The lock is released when the
    process ends."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir.absolute()
        self.sockets = run_directory.run_directory(data_dir)
        self._lock_fd: int | None = None

    def open(self) -> None:
        """Create the directories and take the lock.

        Raises:
            EmbeddedError: If another instance uses the directory, or it cannot be used.
        """
        try:
            run_directory.make(self.root)
            self._take_lock()
        except OSError as error:
            raise EmbeddedError(f"DATA_DIR {self.root}: {error.strerror or error}") from error

    def close(self) -> None:
        """Release the lock, and remove the files outside ``DATA_DIR``."""
        if self._lock_fd is None:
            return
        run_directory.leave(self.root)
        os.close(self._lock_fd)
        self._lock_fd = None

    def holder(self) -> str | None:
        """Return the process id of the instance that uses the directory; ``None`` if none does."""
        try:
            lock_fd = os.open(self.root / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _pid_in(lock_fd)
        finally:
            os.close(lock_fd)
        return None

    def log_file(self, name: str) -> Path:
        """Return the path of a server's log, after rotation if the log is too large."""
        path = self.root / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        return path

    def _take_lock(self) -> None:
        # The kernel releases a flock when its holder ends, also after SIGKILL.
        lock_fd = os.open(self.root / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _pid_in(lock_fd)
            os.close(lock_fd)
            raise EmbeddedError(
                f"the embedded services already run on {self.root} (pid {holder}); "
                "stop them or set another DATA_DIR"
            ) from None
        os.ftruncate(lock_fd, 0)
        os.write(lock_fd, f"{os.getpid()}\n".encode())
        self._lock_fd = lock_fd


def _pid_in(lock_fd: int) -> str:
    return os.read(lock_fd, 32).decode(errors="replace").strip() or "?"
