"""Certificates of servers under test, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    """It also is the authority that clients trust."""
    key: Path


def make(directory: Path) -> Certificate:
    """A certificate of 127.0.0.1, ::1 and localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    made = Certificate(directory / "server.pem", directory / "server.key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"),
            *("-keyout", str(made.key), "-out", str(made.certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return made
