"""One file over HTTP: resumed after interruptions, checked by its SHA-256."""

from __future__ import annotations

import errno
import hashlib
import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol

TRIES_MAX = 5
"""Consecutive connections without a new byte; then the source counts as down."""
RETRY_S = 1.0
"""Pause before another connection."""
SILENCE_S_MAX = 20.0
"""A connection without a byte for this long is given up."""
_BLOCK_BYTES = 1 << 20


class SourceError(Exception):
    """This source cannot deliver now; another one may. The message is one line.

    ``is_missing`` means that the source answered, and has no such model.
    """

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


class NoSpaceError(Exception):
    """The disk is full. The message is one line."""


class Progress(Protocol):
    def step(self, what: str) -> None:
        """A new step, such as ``whisper-base from openai``, begins."""

    def bytes_done(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes of the step are here."""


def download(url: str, target: Path, *, sha256: str, size_bytes: int, progress: Progress) -> None:
    """Fetch ``url`` to ``target``. An unfinished download of an earlier call is continued.

    Raises:
        SourceError: if the server does not deliver, or delivers other bytes.
        NoSpaceError: if the disk is full.
    """
    part = target.with_name(f"{target.name}.part")
    require_space(target.parent, size_bytes - _size(part))
    failures = 0
    while _size(part) < size_bytes:
        before = _size(part)
        try:
            _fetch(url, part, size_bytes, progress)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP {error.code}"
            if error.code < 500 and error.code != 429:
                missing = error.code in (404, 410)
                raise SourceError(reason, is_missing=missing) from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise no_space(target.parent, size_bytes) from error
            reason = reason_of(error)
        else:
            reason = "the connection ended early"
        failures = failures + 1 if _size(part) == before else 0
        if failures >= TRIES_MAX:
            raise SourceError(reason)
        if _size(part) < size_bytes:
            time.sleep(RETRY_S)
    found = sha256_of(part)
    if found != sha256:
        part.unlink()
        raise SourceError(f"other bytes than expected: SHA-256 {found[:12]}…, not {sha256[:12]}…")
    part.rename(target)


def require_space(directory: Path, need_bytes: int) -> None:
    """Raise ``NoSpaceError`` unless ``directory`` has room for ``need_bytes``."""
    if shutil.disk_usage(directory).free < need_bytes:
        raise no_space(directory, need_bytes)


def no_space(directory: Path, need_bytes: int) -> NoSpaceError:
    free = shutil.disk_usage(directory).free
    return NoSpaceError(
        f"no space left in {directory}: {need_bytes / 1e6:.0f} MB needed, {free / 1e6:.0f} MB "
        "free; free some, or set ASR_MODEL_DIR to another disk"
    )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reason_of(error: BaseException) -> str:
    """One line that says why a connection failed."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return (text or type(cause).__name__).splitlines()[0]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(url: str, part: Path, size_bytes: int, progress: Progress) -> None:
    """Append the bytes of one connection to ``part``."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=SILENCE_S_MAX) as answer:
        is_rest = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        done = start if is_rest else 0
        with part.open("ab" if is_rest else "wb") as file:
            while block := answer.read1(_BLOCK_BYTES):
                done += len(block)
                if done > size_bytes:
                    part.unlink()
                    raise SourceError(f"more than the expected {size_bytes} bytes")
                file.write(block)
                progress.bytes_done(done, size_bytes)
