"""The file of access tokens, ``AUTH_TOKENS_FILE``: on each line a name and a token's hash.

A token is 256 random bits. There is nothing in it to guess, so a plain SHA-256 keeps it; salts and
slow hashes are for passwords that people choose. ``asr token`` makes them.
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
"""In the file: each request is compared with all of them."""
FILE_BYTES_MAX = 1 << 18
CHECK_EVERY_S = 1.0
"""How often it is looked whether the file has changed, at most."""
TOKEN_BYTES = 32
TOKEN_PREFIX = "asr_"
"""By it a token is known where it should not stand, such as in a repository."""
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(rf"({NAME.pattern}) ([0-9a-f]{{64}})")


class AuthTokensError(ValueError):
    """The file is missing, malformed, or open to others; the text is for the operator."""


def new_token() -> str:
    """A token to be handed out. Its characters may stand in any header, URL or subprotocol."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> bytes:
    """What is kept of ``token``."""
    # What a header holds need not be text, and then comes as surrogates.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def read(path: Path) -> dict[str, bytes]:
    """Hashes of tokens by name.

    Raises:
        TokensError: for a file that cannot be read, that others may use, or that holds anything
            else. The text never shows a line: it may hold a token, put there by mistake.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise AuthTokensError(f"{path} can be read by others; chmod 600 it")
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise AuthTokensError(f"{path}: {error.strerror}") from None
    lines = content.decode("ascii", "replace").splitlines()
    if len(content) > FILE_BYTES_MAX or len(lines) > TOKENS_MAX:
        raise AuthTokensError(f"{path} holds more than {TOKENS_MAX} tokens")
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise AuthTokensError(f"{path}: line {number} is not a name and a SHA-256 hash")
        if match[1] in hashes:
            raise AuthTokensError(f"{path}: the name in line {number} is there twice")
        hashes[match[1]] = bytes.fromhex(match[2])
    return hashes


def write(path: Path, hashes: Mapping[str, bytes]) -> None:
    """Replace the file by another, mode 0600, at once: a gateway never reads half of it.

    Raises:
        OSError: if the directory cannot be written to.
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
                # root may run this for a gateway that is another user's.
                os.fchown(descriptor, path.stat().st_uid, path.stat().st_gid)
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


class AuthTokens:
    """The tokens that let in, as the file has them: it is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            TokensError: as ``read`` does, and for a file that lets nobody in.
        """
        self._path = path
        self._version = _version(path)
        self._hashes = read(path)
        self._look_s = -math.inf
        if not self._hashes:
            raise AuthTokensError(f"{path} is empty; asr token add NAME")

    def name_of(self, token: str, now_s: float) -> str | None:
        """The name of ``token``; None if it is none of ours. How long that takes tells nothing
        of the hashes."""
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
            # A slip of the editor must not lock everybody out; the tokens stay as they were.
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
    """Differs once the file was written, replaced, or given another mode."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns, found.st_size, found.st_mode
