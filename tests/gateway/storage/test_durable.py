from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.storage.durable import locked, new_file


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "one.job"
    with new_file(path) as file:
        file.write(b"audio")
        assert not path.exists()
    assert path.read_bytes() == b"audio"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_file_that_was_there_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "one.job"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="full"), new_file(path) as file:
        file.write(b"aft")
        raise OSError("full")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_locked_once_and_not_after_its_removal(tmp_path: Path) -> None:
    path = tmp_path / "one.job"
    assert locked(path, "rb") is None
    path.write_bytes(b"audio")
    held = locked(path, "rb")
    assert held is not None and held.read() == b"audio"
    assert locked(path, "r+b") is None
    held.close()
    again = locked(path, "r+b")
    assert again is not None
    again.close()
