"""CURVE keys of the bus, in one directory, which ``asr keys`` generates.

``ROLE.public`` holds a role's public key, ``ROLE.secret`` (mode 0600) its secret key; each is one
line in ZeroMQ's Z85 notation. The broker's host needs ``broker.secret`` and every ``.public`` file,
any other host ``broker.public`` and the pair of its own role. The broker also allows the keys of
``ROLE.d/NAME.public``, such as one for each host, and follows changes of the directory.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import zmq

Role = Literal["broker", "gateway", "worker", "persistence"]
ROLES: tuple[Role, ...] = get_args(Role)
Z85_KEY_CHARACTERS = 40
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class KeysError(ValueError):
    """A key is missing, malformed, or readable by other users. The message is for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys that a process of ``role`` needs."""

    role: Role
    secret: bytes = field(repr=False)
    public: dict[Role, bytes]
    """The broker's key and the peer's own."""
    allowed: dict[Role, frozenset[bytes]] = field(default_factory=dict)
    """The keys of all other roles, for the broker."""


def generate(directory: Path) -> list[Path]:
    """Generate a pair for every role; return the paths of the files.

    Raises:
        KeysError: if one of the files exists. Nothing is written then.
        OSError: if the directory cannot be written to.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = [directory / f"{role}.{half}" for role in ROLES for half in ("public", "secret")]
    if found := [path for path in paths if path.exists()]:
        raise KeysError(f"{found[0]} exists; remove old keys first")
    for role in ROLES:
        _generate_pair(directory, role)
    return paths


def read(directory: Path, role: Role) -> Keys:
    """Read the keys that a process of ``role`` needs.

    Raises:
        KeysError: if a key is missing or malformed, or other users can read the secret key.
    """
    needed: tuple[Role, ...] = ("broker", role)
    public = {each: _read(directory / f"{each}.public") for each in needed}
    path = directory / f"{role}.secret"
    secret = _read(path)
    if others_can_read(path.stat(), os.geteuid()):
        raise KeysError(f"other users can read {path}; run chmod 600 on it")
    # With a wrong pair the broker would refuse this process, and only its own log would show it.
    if zmq.curve_public(secret) != public[role]:
        raise KeysError(f"{path} and {role}.public are not a pair")
    allowed = {each: _allowed(directory, each) for each in ROLES[1:]} if role == "broker" else {}
    return Keys(role=role, secret=secret, public=public, allowed=allowed)


class KeyFiles:
    """The keys of a process of ``role``, whose files may change while it runs.

    Raises:
        KeysError: as ``read`` does.
    """

    def __init__(self, directory: Path, role: Role) -> None:
        self._directory = directory
        self._role = role
        self._state = self._state_of_files()
        self.keys = read(directory, role)
        self.error: KeysError | None = None
        """Why the present files cannot be used; ``keys`` are then the last usable ones."""

    def read_again(self) -> Keys:
        """Read the keys if their files have changed since the last call; return ``keys``."""
        before, self._state = self._state, self._state_of_files()
        if before != self._state:
            try:
                self.keys, self.error = read(self._directory, self._role), None
            except KeysError as error:
                self.error = error
                # A key is removed even if another one is damaged at the same time.
                allowed = {each: _allowed(self._directory, each) for each in self.keys.allowed}
                self.keys = replace(self.keys, allowed=allowed)
        return self.keys

    def _state_of_files(self) -> object:
        return state_of(_found(self._directory, "*", "*.d/*"))


def state_of(files: Iterable[Path]) -> frozenset[tuple[str, int, int, int]]:
    """Changes whenever one of ``files`` is added, removed, written, replaced, or made readable."""
    found = set()
    for path in files:
        with contextlib.suppress(OSError):
            status = path.stat()
            found.add((str(path), status.st_ino, status.st_ctime_ns, status.st_size))
    return frozenset(found)


def _found(directory: Path, *patterns: str) -> Iterator[Path]:
    """Unlike ``Path.glob``, it does not fail if a folder is deleted while it looks."""
    for pattern in patterns:
        for name in glob.iglob(pattern, root_dir=directory, include_hidden=True):  # noqa: PTH207
            yield directory / name


def _allowed(directory: Path, role: Role) -> frozenset[bytes]:
    """The keys of ``role``. A file that holds none allows none."""
    found = set()
    for path in (directory / f"{role}.public", *_found(directory, f"{role}.d/*.public")):
        with contextlib.suppress(KeysError):
            found.add(_read(path))
    return frozenset(found)


def generate_for_host(directory: Path, role: Role, host: str) -> Path:
    """Generate a further pair for ``role``, allowed by the broker as ``ROLE.d/HOST.public``; return
    a directory with everything that ``host`` needs, to be moved to that host.

    Raises:
        KeysError: if the name is taken, or the broker has no key. Nothing is written then.
        OSError: if the directory cannot be written to.
    """
    if not _HOST.fullmatch(host) or role == "broker":
        raise KeysError(f"no key can be made for a {role} named {host!r}")
    broker = _read(directory / "broker.public")
    allowed = directory / f"{role}.d" / f"{host}.public"
    own = directory / "hosts" / host
    if allowed.exists() or (own / f"{role}.secret").exists():
        raise KeysError(f"{allowed} exists; remove the old key first")
    for path in (own, allowed.parent):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    public = _generate_pair(own, role)
    (own / "broker.public").write_bytes(broker + b"\n")
    # Complete when it appears: the broker may be watching.
    unfinished = allowed.with_suffix(".unfinished")
    unfinished.write_bytes(public)
    unfinished.replace(allowed)
    return own


def _generate_pair(directory: Path, role: Role) -> bytes:
    """Write a new pair to ``directory``; return the content of its public file."""
    for half, key in zip(("public", "secret"), zmq.curve_keypair(), strict=True):
        path = directory / f"{role}.{half}"
        path.touch(mode=0o644 if half == "public" else 0o600, exist_ok=False)
        path.write_bytes(key + b"\n")
    return (directory / f"{role}.public").read_bytes()


def others_can_read(status: os.stat_result, user: int) -> bool:
    """Whether users other than ``user`` can read or change a file of secrets. As in libpq, the
    group may read a file owned by root if the process has another user: Kubernetes mounts secrets
    that way."""
    allowed = 0o640 if status.st_uid == 0 != user else 0o600
    return bool(status.st_mode & 0o777 & ~allowed & 0o077)


def require_regular(path: Path) -> None:
    """Raise ``OSError`` if ``path`` is missing, or no regular file: to open a FIFO could wait."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _read(path: Path) -> bytes:
    try:
        require_regular(path)
        key = path.read_bytes().strip()
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None
    # Not every text of Z85's characters is a number of 256 bits; curve_public decodes it.
    with contextlib.suppress(zmq.ZMQError):
        if len(key) == Z85_KEY_CHARACTERS and zmq.curve_public(key):
            return key
    raise KeysError(f"{path} does not hold a CURVE key")
