"""Downloads from a server that cuts, refuses, and lies."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from asr_worker.model_files import download as d
from tests.asr_worker.model_files.file_server import FileServer, Steps

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(d, "RETRY_S", 0.0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file"


def fetch(server: FileServer, target: Path, steps: Steps, content: bytes = CONTENT) -> None:
    server.files["/file"] = content
    url = f"{server.url}/file"
    d.download(url, target, sha256=SHA256, size_bytes=len(CONTENT), progress=steps)


def test_a_file_is_fetched_and_counted(server: FileServer, target: Path, steps: Steps) -> None:
    fetch(server, target, steps)
    assert target.read_bytes() == CONTENT
    assert steps.done[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_cut_connection_is_continued(server: FileServer, target: Path, steps: Steps) -> None:
    server.cuts, server.cut_bytes = 2, 100_000
    fetch(server, target, steps)
    assert target.read_bytes() == CONTENT
    assert server.requests == ["", "bytes=100000-", "bytes=200000-"]


def test_an_earlier_call_is_continued(server: FileServer, target: Path, steps: Steps) -> None:
    target.with_name("file.part").write_bytes(CONTENT[:123_456])
    fetch(server, target, steps)
    assert target.read_bytes() == CONTENT
    assert server.requests == ["bytes=123456-"]


def test_a_server_without_ranges_begins_again(
    server: FileServer, target: Path, steps: Steps
) -> None:
    server.knows_ranges = False
    target.with_name("file.part").write_bytes(b"x" * 1_000)
    fetch(server, target, steps)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("length", [300_000, 300_001, 400_000])
def test_other_bytes_are_refused_and_deleted(
    server: FileServer, target: Path, steps: Steps, length: int
) -> None:
    with pytest.raises(d.SourceError, match=r"other bytes|more than the expected 300000 bytes"):
        fetch(server, target, steps, bytes(length))
    assert not target.exists()
    with pytest.raises(d.SourceError):  # It does not stay broken for the next call.
        fetch(server, target, steps, bytes(length))
    fetch(server, target, steps)
    assert target.read_bytes() == CONTENT


def test_a_server_that_never_delivers(server: FileServer, target: Path, steps: Steps) -> None:
    server.cuts, server.cut_bytes = 1_000, 0
    with pytest.raises(d.SourceError, match="ended early") as caught:
        fetch(server, target, steps)
    assert len(server.requests) == d.TRIES_MAX
    assert not caught.value.is_missing


@pytest.mark.parametrize(
    ("status", "is_missing", "requests"), [(404, True, 1), (403, False, 1), (503, False, 5)]
)
def test_a_refusal_is_reported(
    server: FileServer, target: Path, steps: Steps, status: int, is_missing: bool, requests: int
) -> None:
    server.status = status
    with pytest.raises(d.SourceError, match=f"HTTP {status}") as caught:
        fetch(server, target, steps)
    assert caught.value.is_missing is is_missing
    assert len(server.requests) == requests


def test_no_server_is_one_line(target: Path, steps: Steps) -> None:
    with pytest.raises(d.SourceError, match="Connection refused") as caught:
        d.download("http://127.0.0.1:1/x", target, sha256="", size_bytes=1, progress=steps)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_reported_before_the_download(
    server: FileServer, target: Path, steps: Steps
) -> None:
    with pytest.raises(d.NoSpaceError, match=r"no space left in .* MB needed.*ASR_MODEL_DIR"):
        d.download(server.url, target, sha256="", size_bytes=1 << 60, progress=steps)
    assert server.requests == []


def test_a_disk_that_fills_up_is_reported(
    server: FileServer, target: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(d, "_fetch", full)
    with pytest.raises(d.NoSpaceError):
        fetch(server, target, steps)
