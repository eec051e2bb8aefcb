"""Git clones of the clients, and of the libraries that some of them use."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = {
    "TakahikoKawasaki/nv-websocket-client": "nv-websocket-client-2.9",
    "Textalk/websocket-php": "1.4.3",
    "TooTallNate/Java-WebSocket": "v1.5.3",
    "go-audio/audio": "v1.0.0",
    "go-audio/riff": "v1.0.0",
    "go-audio/wav": "v1.1.0",
}
"""Repositories on GitHub, with a tag: the version that a client asks for, else the newest."""


@dataclass(frozen=True)
class Clone:
    """One commit of a git clone."""

    folder: Path
    commit: str

    def copy(self, path: str, target: Path) -> Path:
        """The file or folder at ``path``, unchanged, in ``target``."""
        archive = ["git", "-C", str(self.folder), "archive", self.commit, path]
        packed = subprocess.run(archive, check=True, capture_output=True).stdout
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-x", "-C", str(target)], input=packed, check=True)
        return target / path


def library(name: str, downloads: Path) -> Clone:
    """One of ``LIBRARIES``. It is cloned to ``downloads``, and stays there for the next time."""
    folder = downloads / "github.com" / name
    if not folder.exists():
        address = f"https://github.com/{name}"
        subprocess.run(["git", "clone", "--quiet", "--bare", address, str(folder)], check=True)
    return Clone(folder, LIBRARIES[name])


def replace(source: Path, address: str, ours: str) -> None:
    """Replace ``address``, which a client has in its source."""
    text = source.read_text(encoding="utf-8")
    assert address in text
    source.write_text(text.replace(address, ours), encoding="utf-8")
