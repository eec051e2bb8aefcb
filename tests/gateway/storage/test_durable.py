from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gateway.storage import durable
from gateway.storage.durable import locked, new_file, remove_unfinished


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


def test_a_link_in_the_place_of_the_new_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _bytes: "guessed")
    target = tmp_path / "shadow"
    target.write_bytes(b"kept")
    (tmp_path / f"one.guessed{durable.TEMPORARY}").symlink_to(target)
    with pytest.raises(FileExistsError), new_file(tmp_path / "one.job"):
        pass
    assert target.read_bytes() == b"kept"


def test_files_that_a_killed_process_left_incomplete_are_removed(tmp_path: Path) -> None:
    left, growing, complete = (tmp_path / name for name in ("a.1.tmp", "b.2.tmp", "c.job"))
    for path in (left, growing, complete):
        path.write_bytes(b"audio")
    for path in (left, complete):
        os.utime(path, (1.0, 1.0))
    remove_unfinished(tmp_path)
    remove_unfinished(tmp_path / "missing")
    assert sorted(tmp_path.iterdir()) == [growing, complete]
