from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime import run_directory as runs
from runtime.run_directory import run_directory


@pytest.mark.parametrize("depth", range(0, 140, 7))
def test_sockets_always_have_a_path_short_enough(depth: int) -> None:
    longest = run_directory(Path("/") / ("d" * depth)) / runs.LONGEST_NAME
    assert len(os.fsencode(longest)) <= runs.UNIX_SOCKET_PATH_BYTES_MAX


def test_a_short_data_directory_holds_its_sockets() -> None:
    assert run_directory(Path("/srv/asr")) == Path("/srv/asr/run")


def test_deep_data_directories_do_not_share_sockets() -> None:
    one, two = (run_directory(Path("/", "d" * 120, name)) for name in "ab")
    assert one != two
    assert one == run_directory(Path("/", "d" * 120, "a"))


def test_a_relative_data_directory_is_equal_for_every_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_directory(Path(".data")) == run_directory(tmp_path / ".data")


def test_only_its_user_can_enter_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = runs.make(tmp_path / "data")
    finally:
        os.umask(before)
    assert made == tmp_path / "data" / "run"
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o755)  # As an earlier system may have left it.
    assert runs.make(tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_directory_outside_is_removed_when_nothing_is_left_in_it(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    outside = runs.make(deep)
    try:
        assert outside.parent == Path("/tmp")
        (outside / "left.sock").touch()
        runs.leave(deep)
        assert outside.exists()
    finally:
        (outside / "left.sock").unlink()
        runs.leave(deep)
    assert not outside.exists()
    inside = runs.make(tmp_path)
    runs.leave(tmp_path)
    assert inside.exists()
