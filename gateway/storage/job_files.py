"""Audio files that wait to be recognised, in a folder that all gateways of a host share.

A file begins with a digit, the number of times that its recognition began, and a line of JSON, its
``Ticket``; the rest is the audio. A gateway that works on a file holds its lock, which ends with
the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from gateway.storage import durable
from gateway.storage.callers import NO_LIMITS, Caller, TokenLimits
from wire.records import DEFAULT_TENANT

TICKET_BYTES_MAX = 65_536
"""Longest line of JSON. A file with a longer one is damaged."""
_SUFFIX = ".job"


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """The request for which a file waits."""

    job_id: str
    """Also the id of the session that recognises it."""
    resume_token: str
    """Resume token of that session."""
    client: str
    """Address of the client that submitted it."""
    language: str = ""
    model: str = ""
    tenant: str = DEFAULT_TENANT
    token_name: str = ""
    limits: TokenLimits = NO_LIMITS
    """Limits of the token at the time of submission."""

    def caller(self) -> Caller:
        return Caller(
            address=self.client,
            tenant=self.tenant,
            token_name=self.token_name,
            limits=self.limits,
        )


class FullError(Exception):
    """The folder has no room for the file."""


class DamagedError(Exception):
    """The file has no ticket."""


class JobFile:
    """A file that this process has locked. Call ``close``, or ``remove`` when it is done."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Raises:
        DamagedError: the file has no ticket.
        """
        self._path = path
        self._file = file
        head = os.pread(file.fileno(), TICKET_BYTES_MAX, 0)
        line, newline, _ = head.partition(b"\n")
        self._audio_at = len(line) + len(newline)
        try:
            self.attempts = int(line[:1])
            self.ticket = msgspec.json.decode(line[1:], type=Ticket)
        except (ValueError, msgspec.MsgspecError) as error:
            raise DamagedError(path.name) from error

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes of the audio, fewer at its end."""
        return os.pread(self._file.fileno(), size, self._audio_at + offset)

    def note_attempts(self, attempts: int) -> None:
        """Store the number, at most 9, in the file, which keeps its position in the queue."""
        self.attempts = attempts
        times = os.fstat(self._file.fileno())
        os.pwrite(self._file.fileno(), b"%d" % attempts, 0)
        os.utime(self._file.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))

    def close(self) -> None:
        """Unlock the file, for this gateway or another one."""
        self._file.close()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()


class JobFiles:
    """At most ``count_max`` files with ``bytes_max`` bytes in total."""

    def __init__(self, directory: Path, count_max: int, bytes_max: int) -> None:
        self._directory = directory
        self._count_max = count_max
        self._bytes_max = bytes_max

    def put(self, ticket: Ticket, audio: BinaryIO) -> int:
        """Store a file, and return the number of files before it.

        Raises:
            FullError: there is no room.
            OSError: it cannot be written.
        """
        size = audio.seek(0, os.SEEK_END)
        audio.seek(0)
        with self._alone():
            before = self.check(size)
            with durable.new_file(self._path(ticket.job_id)) as file:
                file.write(b"0" + msgspec.json.encode(ticket) + b"\n")
                shutil.copyfileobj(audio, file)
        return before

    def check(self, size: int) -> int:
        """Return the number of files.

        Raises:
            FullError: there is no room for another one of ``size`` bytes.
        """
        files = self.waiting()
        used = sum(durable.size_of(self._path(job_id)) for job_id in files)
        if len(files) >= self._count_max or used + size > self._bytes_max:
            raise FullError(f"{len(files)} files with {used} bytes are waiting")
        return len(files)

    def waiting(self) -> list[str]:
        """Ids of all files, those being recognised included, in the order of submission."""
        found: list[tuple[int, str]] = []
        for path in self._directory.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # Removed in the meantime.
                found.append((path.stat().st_mtime_ns, path.stem))
        return [job_id for _, job_id in sorted(found)]

    def owner(self, job_id: str) -> str | None:
        """The tenant of the file; None: there is none, or it is damaged."""
        path = self._path(job_id)
        try:
            with path.open("rb") as file:
                return JobFile(path, file).ticket.tenant
        except (FileNotFoundError, DamagedError):
            return None

    def take(self, job_id: str) -> JobFile | None:
        """Lock the file; None: another task holds it, it is gone, or it was damaged and is set
        aside."""
        path = self._path(job_id)
        if (file := durable.locked(path, "r+b")) is None:
            return None
        try:
            return JobFile(path, file)
        except DamagedError:
            path.rename(path.with_suffix(".damaged"))
            structlog.get_logger().error("file_job_damaged", file=path.name)
            file.close()
            return None

    def remove(self, job_id: str) -> bool:
        """Remove the file, also one that is being recognised. Returns whether it was there."""
        try:
            self._path(job_id).unlink()
        except FileNotFoundError:
            return False
        return True

    def sweep(self) -> None:
        """Remove unfinished files of a gateway that was killed."""
        if self._directory.exists():
            with self._alone():
                for path in self._directory.glob(f"*{durable.TEMPORARY}"):
                    path.unlink()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep all other tasks of all gateways from writing."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, job_id: str) -> Path:
        return self._directory / f"{job_id}{_SUFFIX}"
