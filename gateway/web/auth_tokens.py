"""The file of access tokens, ``AUTH_TOKENS_FILE``: on each line a name, a token's hash, and its
restrictions.

``anna HASH scopes=read,transcribe tenant=acme expires=2027-01-31T00:00:00Z``: each field may be
missing; the others are ``sessions``, ``audio_s_per_day`` and ``requests_per_s``. An unknown field
makes the file invalid, because it may be a restriction.

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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import structlog

from gateway.storage.callers import NO_LIMITS, TokenLimits
from gateway.storage.durable import new_file
from runtime.settings import fail
from wire.keys import others_can_read, require_regular, state_of
from wire.records import DEFAULT_TENANT

TOKENS_MAX = 1_000
"""Tokens in the file. Each request is compared with all of them."""
FILE_BYTES_MAX = 1 << 18
CHECK_EVERY_S = 1.0
"""Minimum interval between checks whether the file has changed."""
TOKEN_BYTES = 32
TOKEN_PREFIX = "asr_"
"""Lets scanners find leaked tokens, for example in a repository."""
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""Names of tokens and of tenants."""
SHOWN_CHARS_MAX: Final = 24
"""Longer values are not in error messages. Tokens are longer, times are shorter."""
EXPIRES_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
LIMIT_FIELDS: Final = tuple(field.name for field in fields_of(TokenLimits))
LIMIT_MAX: Final = 10**9
_NUMBER = re.compile("[1-9][0-9]{0,9}")
FIELDS: Final = ("scopes", "tenant", "expires", *LIMIT_FIELDS)
_LINE = re.compile(rf"({NAME.pattern}) ([0-9a-f]{{64}})((?: [^ =]+=[^ ]*)*)")

Scope = Literal["transcribe", "read", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("transcribe", "read", "admin")


class AuthTokensError(ValueError):
    """The file is missing, malformed, or accessible to others. The text is for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A token's hash and permissions."""

    digest: bytes
    scopes: frozenset[Scope] = frozenset(SCOPES)
    tenant: str = DEFAULT_TENANT
    """The tenant whose sessions it can use, and that owns the sessions it starts."""
    expires: datetime | None = None
    """Whole seconds, UTC; from then on it is refused. None: never."""
    limits: TokenLimits = NO_LIMITS

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires

    def fields(self) -> list[str]:
        """Return the fields of the file that differ from their defaults."""
        fields = []
        if self.scopes != frozenset(SCOPES):
            fields.append("scopes=" + ",".join(scope for scope in SCOPES if scope in self.scopes))
        if self.tenant != DEFAULT_TENANT:
            fields.append(f"tenant={self.tenant}")
        if self.expires is not None:
            fields.append(f"expires={self.expires.strftime(EXPIRES_FORMAT)}")
        limits = asdict(self.limits)
        return fields + [f"{name}={limit}" for name, limit in limits.items() if limit is not None]


def new_token() -> str:
    """Return a new token. Its characters are valid in headers, URLs and subprotocols."""
    return TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> bytes:
    """Return the hash that the file contains for ``token``."""
    # A header need not be valid text; other bytes arrive as surrogates.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def read(path: Path) -> dict[str, Access]:
    """Return the permissions of tokens by the tokens' names.

    Raises:
        AuthTokensError: the file cannot be read, is accessible to others, or is malformed. The text
            names the line and its field. It never contains what may be a token by mistake.
    """
    try:
        require_regular(path)
        with path.open("rb") as file:
            if others_can_read(os.fstat(file.fileno()), os.geteuid()):
                raise AuthTokensError(f"{path} is accessible to others; run chmod 600 on it")
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise AuthTokensError(f"{path}: {error.strerror}") from None
    lines = content.decode("ascii", "replace").splitlines()
    if len(content) > FILE_BYTES_MAX or len(lines) > TOKENS_MAX:
        raise AuthTokensError(f"{path} has more than {TOKENS_MAX} tokens")
    found: dict[str, Access] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise AuthTokensError(
                f"{path}: line {number} is not a name, a SHA-256 hash and fields NAME=VALUE, with "
                "one space between them"
            )
        if match[1] in found:
            raise AuthTokensError(f"{path}: line {number}: the name {match[1]} is repeated")
        try:
            found[match[1]] = _access(bytes.fromhex(match[2]), match[3].split())
        except ValueError as error:
            raise AuthTokensError(f"{path}: line {number}: {error}") from None
    return found


def _access(digest: bytes, fields: Iterable[str]) -> Access:
    """Errors name the field that is invalid, and what is allowed."""
    values: dict[str, str] = {}
    for field in fields:
        name, _, value = field.partition("=")
        if name not in FIELDS:
            raise ValueError(f"the field {_shown(name)} is unknown; there are {', '.join(FIELDS)}")
        if name in values:
            raise ValueError(f"the field {name} is repeated")
        values[name] = value
    expires = values.get("expires")
    return Access(
        digest=digest,
        scopes=scopes_of(values["scopes"]) if "scopes" in values else frozenset(SCOPES),
        tenant=tenant_of(values.get("tenant", DEFAULT_TENANT)),
        expires=None if expires is None else _time(expires),
        limits=limits_of({name: values[name] for name in LIMIT_FIELDS if name in values}),
    )


def scopes_of(names: str) -> frozenset[Scope]:
    """Return the scopes with these comma-separated names.

    Raises:
        ValueError: one is unknown, or there is none.
    """
    asked = names.split(",")
    if unknown := [_shown(name) for name in asked if name not in SCOPES]:
        raise ValueError(f"no scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    return frozenset(scope for scope in SCOPES if scope in asked)


def tenant_of(name: str) -> str:
    """Raises:
    ValueError: not a name of a tenant.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"no tenant: {_shown(name)}; a tenant is 1 to 64 letters, digits, dots, hyphens or "
            "underscores"
        )
    return name


def limits_of(limits: Mapping[str, int | str]) -> TokenLimits:
    """Return the limits with these names.

    Raises:
        ValueError: one is not a whole number from 1 to ``LIMIT_MAX``.
    """
    for name, limit in limits.items():
        text = str(limit)
        if not _NUMBER.fullmatch(text) or int(text) > LIMIT_MAX:
            raise ValueError(f"{name}: {_shown(text)} is not a number from 1 to {LIMIT_MAX}")
    return TokenLimits(**{name: int(limit) for name, limit in limits.items()})


def _time(text: str) -> datetime:
    try:
        return datetime.strptime(text, EXPIRES_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(
            f"expires: {_shown(text)} is not a time such as 2027-01-31T00:00:00Z"
        ) from None


def _shown(value: str) -> str:
    """``value``, for an error message, unless it may be a token by mistake."""
    if len(value) <= SHOWN_CHARS_MAX and not value.startswith(TOKEN_PREFIX):
        return repr(value)
    return f"(a value of {len(value)} characters, not shown)"


def write(path: Path, tokens: Mapping[str, Access]) -> None:
    """Replace the file atomically, with mode 0600: a gateway never reads a part of it.

    Raises:
        OSError: the directory is not writable.
    """
    path = path.resolve()
    with new_file(path) as file:
        for name, access in tokens.items():
            line = " ".join([name, access.digest.hex(), *access.fields()])
            file.write(f"{line}\n".encode("ascii"))
        if path.exists():
            # root may run this for a gateway of another user.
            os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)


class AuthTokens:
    """The tokens of a file. It is read again after it has changed."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            AuthTokensError: as ``read`` does, and for an empty file.
        """
        self._path = path
        self._state = state_of([path])
        self._known = read(path)
        self._look_s = -math.inf
        self._end_logged = False
        if not self._known:
            raise AuthTokensError(f"{path} is empty; add a token: asr token add NAME")
        self._warn_of_end()

    def find(self, token: str, now_s: float) -> tuple[str, Access] | None:
        """Return the name of ``token`` and its permissions; None if it is unknown. The time of the
        search does not depend on the hashes. The caller checks whether it has expired."""
        self._read_again(now_s)
        shown = hash_of(token)
        found = None
        for name, access in self._known.items():
            if hmac.compare_digest(access.digest, shown):
                found = name, access
        return found

    def _read_again(self, now_s: float) -> None:
        if now_s < self._look_s:
            return
        self._look_s = now_s + CHECK_EVERY_S
        state = state_of([self._path])
        if state == self._state:
            self._warn_of_end()
            return
        self._state = state
        log = structlog.get_logger()
        try:
            self._known = read(self._path)
        except AuthTokensError as error:
            # Keep the last valid tokens: a typing error must not lock out all clients.
            log.error("auth_tokens_not_read", error=str(error))
            return
        log.info("auth_tokens_read", tokens=len(self._known))
        self._end_logged = False
        self._warn_of_end()

    def _warn_of_end(self) -> None:
        """Log once that every request will be refused."""
        now = datetime.now(UTC)
        if self._end_logged or not self._known:
            return
        if all(access.expired(now) for access in self._known.values()):
            self._end_logged = True
            structlog.get_logger().warning("auth_tokens_expired", file=str(self._path))


def load_tokens(path: Path | None) -> AuthTokens | None:
    """Return the tokens of ``AUTH_TOKENS_FILE``; None without that setting. End the process with an
    error message if the file cannot be used."""
    if path is None:
        return None
    try:
        return AuthTokens(path)
    except AuthTokensError as error:
        fail(f"AUTH_TOKENS_FILE: {error}")
