"""CURVE keys of the bus: one pair for each role, in one directory.

``ROLE.public`` holds a role's public key, ``ROLE.secret`` (mode 0600) its secret key; each is one
line in ZeroMQ's Z85 notation. The broker's host needs ``broker.secret`` and every ``.public`` file.
Any other host needs ``broker.public`` and the pair of its own role. ``asr keys`` generates them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import zmq
from zmq.utils import z85

Role = Literal["broker", "gateway", "worker", "persistence"]
ROLES: tuple[Role, ...] = get_args(Role)
Z85_KEY_CHARACTERS = 40


class KeysError(ValueError):
    """A key is missing, malformed, or readable by other users. The message is for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys that a process of ``role`` needs."""

    role: Role
    secret: bytes = field(repr=False)
    public: dict[Role, bytes]
    """The broker has those of all roles; a peer has its own and the broker's."""


def generate(directory: Path) -> list[Path]:
    """Generate a pair for every role; return the paths of the files.

    Raises:
        KeysError: if one of the files exists. Nothing is written then.
        OSError: if the directory cannot be written to.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = [directory / f"{role}.{half}" for role in ROLES for half in ("public", "secret")]
    for path in paths:
        if path.exists():
            raise KeysError(f"{path} exists; remove old keys first")
    for role in ROLES:
        for half, key in zip(("public", "secret"), zmq.curve_keypair(), strict=True):
            path = directory / f"{role}.{half}"
            path.touch(mode=0o644 if half == "public" else 0o600, exist_ok=False)
            path.write_bytes(key + b"\n")
    return paths


def read(directory: Path, role: Role) -> Keys:
    """Read the keys that a process of ``role`` needs.

    Raises:
        KeysError: if a key is missing or malformed, or other users can read the secret key.
    """
    needed: tuple[Role, ...] = ROLES if role == "broker" else ("broker", role)
    public = {each: _read(directory / f"{each}.public") for each in needed}
    path = directory / f"{role}.secret"
    secret = _read(path)
    if path.stat().st_mode & 0o077:
        raise KeysError(f"other users can read {path}; run chmod 600 on it")
    # With a wrong pair the broker would refuse this process, and only its own log would show it.
    if zmq.curve_public(secret) != public[role]:
        raise KeysError(f"{path} and {role}.public are not a pair")
    return Keys(role=role, secret=secret, public=public)


def _read(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None
    if len(key) != Z85_KEY_CHARACTERS or not set(key) <= set(z85.Z85CHARS):
        raise KeysError(f"{path} does not hold a CURVE key")
    return key
