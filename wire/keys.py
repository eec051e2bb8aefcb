"""CURVE keys of the bus: one pair for each role, in one directory.

``ROLE.public`` holds a role's public key, ``ROLE.secret`` (mode 0600) its secret key; each is one
line in ZeroMQ's Z85 notation. The broker's host needs ``broker.secret`` and every ``.public`` file.
Any other host needs ``broker.public`` and the pair of its own role. ``asr keys`` generates them.
"""

from __future__ import annotations

import os
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
class ServerKeys:
    """Keys of the broker: its secret key, and the public key of every role that may connect."""

    secret: bytes = field(repr=False)
    allowed: dict[Role, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKeys:
    """Keys of a process that connects. ``server`` is the broker's public key."""

    server: bytes
    public: bytes
    secret: bytes = field(repr=False)


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
        public, secret = zmq.curve_keypair()
        _write(directory / f"{role}.public", public, 0o644)
        _write(directory / f"{role}.secret", secret, 0o600)
    return paths


def server_keys(directory: Path) -> ServerKeys:
    """Read the keys that the broker needs.

    Raises:
        KeysError: if a key is missing or malformed, or other users can read the secret key.
    """
    return ServerKeys(
        secret=_read_secret(directory, "broker"),
        allowed={role: _read(directory / f"{role}.public") for role in ROLES if role != "broker"},
    )


def client_keys(directory: Path, role: Role) -> ClientKeys:
    """Read the keys that a process of ``role`` needs.

    Raises:
        KeysError: as ``server_keys`` does.
    """
    return ClientKeys(
        server=_read(directory / "broker.public"),
        public=_read(directory / f"{role}.public"),
        secret=_read_secret(directory, role),
    )


def _read_secret(directory: Path, role: Role) -> bytes:
    path = directory / f"{role}.secret"
    secret = _read(path)
    if path.stat().st_mode & 0o077:
        raise KeysError(f"other users can read {path}; run chmod 600 on it")
    # With a wrong pair the broker would refuse this process, and only its own log would show it.
    if zmq.curve_public(secret) != _read(directory / f"{role}.public"):
        raise KeysError(f"{path} and {role}.public are not a pair")
    return secret


def _read(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None
    if len(key) != Z85_KEY_CHARACTERS or not set(key) <= set(z85.Z85CHARS):
        raise KeysError(f"{path} does not hold a CURVE key")
    return key


def _write(path: Path, key: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key + b"\n")
