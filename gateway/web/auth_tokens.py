"""The file of access tokens, ``AUTH_TOKENS_FILE``: on each line a name and a token's hash.

A token has 256 random bits and cannot be guessed, so a plain SHA-256 protects it. Salts and slow
hashes are for passwords that people choose. ``asr token`` makes tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

import structlog

from runtime.settings import fail

TOKENS_MAX = 1_000
"""Tokens in the file. Each request is compared with all of them."""
FILE_BYTES_MAX = 1 << 18
CHECK_EVERY_S = 1.0
"""Minimum interval between checks whether the file has changed."""
TOKEN_BYTES = 32
TOKEN_PREFIX = "asr_"
"""Lets scanners find a token where it should not be, such as in a repository."""
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(rf"({NAME.pattern}) ([0-9a-f]{{64}})")


class AuthTokensError(ValueError):
    """The file is missing, malformed, or accessible to others. The text is for the operator."""


def new_token() -> str:
    """Return a new token. Its characters are valid in headers, URLs and subprotocols."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> bytes:
    """Return the hash that the file contains for ``token``."""
    # A header need not be valid text; other bytes arrive as surrogates.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def read(path: Path) -> dict[str, bytes]:
    """Return the hashes of tokens by name.

    Raises:
        AuthTokensError: the file cannot be read, is accessible to others, or is malformed. The text
            never contains a line of it, which may be a token by mistake.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise AuthTokensError(f"{path} is accessible to others; run chmod 600 on it")
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise AuthTokensError(f"{path}: {error.strerror}") from None
    lines = content.decode("ascii", "replace").splitlines()
    if len(content) > FILE_BYTES_MAX or len(lines) > TOKENS_MAX:
        raise AuthTokensError(f"{path} has more than {TOKENS_MAX} tokens")
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise AuthTokensError(f"{path}: line {number} is not a name and a SHA-256 hash")
        if match[1] in hashes:
            raise AuthTokensError(f"{path}: the name in line {number} is repeated")
        hashes[match[1]] = bytes.fromhex(match[2])
    return hashes


def write(path: Path, hashes: Mapping[str, bytes]) -> None:
    """Replace the file atomically, with mode 0600: a gateway never reads a part of it.

    Raises:
        OSError: the directory is not writable.
    """
    path = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.writelines(f"{name} {known.hex()}\n" for name, known in hashes.items())
            file.flush()
            os.fsync(descriptor)
            if path.exists():
                # root may run this for a gateway of another user.
                os.fchown(descriptor, path.stat().st_uid, path.stat().st_gid)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


class AuthTokens:
    """The tokens of a file. It is read again after it has changed."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            AuthTokensError: as ``read`` does, and for an empty file.
        """
        self._path = path
        self._version = _version(path)
        self._hashes = read(path)
        self._look_s = -math.inf
        if not self._hashes:
            raise AuthTokensError(f"{path} is empty; add a token: asr token add NAME")

    def name_of(self, token: str, now_s: float) -> str | None:
        """Return the name of ``token``; None if it is unknown. The time it takes does not depend on
        the hashes."""
        self._read_again(now_s)
        shown = hash_of(token)
        found = None
        for name, known in self._hashes.items():
            if hmac.compare_digest(known, shown):
                found = name
        return found

    def _read_again(self, now_s: float) -> None:
        if now_s < self._look_s:
            return
        self._look_s = now_s + CHECK_EVERY_S
        version = _version(self._path)
        if version == self._version:
            return
        self._version = version
        log = structlog.get_logger()
        try:
            self._hashes = read(self._path)
        except AuthTokensError as error:
            # A typing error must not lock out all clients: keep the tokens.
            log.error("auth_tokens_not_read", error=str(error))
            return
        log.info("auth_tokens_read", tokens=len(self._hashes))


def load_tokens(path: Path | None) -> AuthTokens | None:
    """Return the tokens of ``AUTH_TOKENS_FILE``; None without that setting. End the process with an
    error message if the file cannot be used."""
    if path is None:
        return None
    try:
        return AuthTokens(path)
    except AuthTokensError as error:
        fail(f"AUTH_TOKENS_FILE: {error}")


def _version(path: Path) -> tuple[int, ...] | None:
    """Changes when the file is written, replaced, or gets another mode."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size, found.st_mode
