"""Sources that names on the command line stand for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from asr_client.sources import AUDIO_SUFFIXES, Source, expand, total_size
from gateway.audio.formats import FORMATS


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.wav", "a.MP3", "notes.txt", "deep/er/c.opus", "deep/talk[1].mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path


def names(found: tuple[list[Source], dict[str, str]]) -> list[str]:
    assert not found[1]
    return [source.name for source in found[0]]


@pytest.mark.usefixtures("directory")
def test_a_directory_expands_to_the_audio_in_it() -> None:
    assert names(expand(["."])) == ["a.MP3", "b.wav", "deep/er/c.opus", "deep/talk[1].mp4"]


@pytest.mark.usefixtures("directory")
def test_patterns_are_expanded_as_by_a_shell() -> None:
    assert names(expand(["*.wav"])) == ["b.wav"]
    assert names(expand(["**/*.opus"])) == ["deep/er/c.opus"]
    assert names(expand([str(Path.cwd() / "*.wav")])) == [str(Path.cwd() / "b.wav")]


@pytest.mark.usefixtures("directory")
def test_a_file_may_have_any_name() -> None:
    assert names(expand(["notes.txt", "deep/talk[1].mp4"])) == ["notes.txt", "deep/talk[1].mp4"]


@pytest.mark.usefixtures("directory")
def test_each_source_counts_once_and_keeps_its_place() -> None:
    assert names(expand(["b.wav", "-", ".", "-", "https://h/x.mp3"]))[:2] == ["b.wav", "-"]
    assert names(expand(["b.wav", "*.wav"])) == ["b.wav"]


@pytest.mark.usefixtures("directory")
def test_names_without_files_are_reported_and_the_rest_is_kept() -> None:
    Path("empty").mkdir()
    sources, errors = expand(["nowhere.wav", "*.flac", "empty", "b.wav"])
    assert [source.name for source in sources] == ["b.wav"]
    assert list(errors) == ["nowhere.wav", "*.flac", "empty"]
    assert all(error.startswith(f"{name}: ") for name, error in errors.items())
    sources, errors = expand(["file:///b.wav", "HTTPS://h/x.mp3"])
    assert [source.name for source in sources] == ["HTTPS://h/x.mp3"]
    assert errors == {
        "file:///b.wav": "file:///b.wav: only http:// and https:// addresses are fetched"
    }


@pytest.mark.usefixtures("directory")
def test_names_that_cannot_be_looked_up_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 300
    sources, errors = expand(["", long, "b.wav"])
    assert [source.name for source in sources] == ["b.wav"]
    assert errors == {
        "": "'': the name of a source is empty",
        long: f"{long}: File name too long",
    }

    def refuse(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert expand(["locked/b.wav"]) == ([], {"locked/b.wav": "locked/b.wav: Permission denied"})


@pytest.mark.parametrize("number, reported", [(errno.EACCES, True), (errno.ENOENT, False)])
def test_a_directory_that_cannot_be_listed_is_reported_unless_it_is_gone(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int, reported: bool
) -> None:
    list_directory = os.scandir

    def scandir(path: str) -> Any:
        if Path(path).name == "er":
            raise OSError(number, os.strerror(number), path)
        return list_directory(path)

    monkeypatch.setattr(os, "scandir", scandir)
    sources, errors = expand([str(directory)])
    assert [Path(source.name).name for source in sources] == ["a.MP3", "b.wav", "talk[1].mp4"]
    locked = str(directory / "deep" / "er")
    assert errors == ({locked: f"{locked}: Permission denied"} if reported else {})


@pytest.mark.parametrize(
    "name, stem",
    [("-", "stdin"), ("a/talk.tar.mp3", "talk.tar"), ("https://h/x.mp3?a=b.c", "x"), ("a/x", "x")],
)
def test_a_transcript_is_named_by_its_source(name: str, stem: str) -> None:
    assert Source(name).stem == stem


def test_the_size_of_all_is_known_if_each_is() -> None:
    assert total_size([Source("a", 1), Source("b", 2)]) == 3
    assert total_size([Source("a", 1), Source("-")]) is None


def test_a_directory_expands_to_every_format_of_the_server() -> None:
    assert {suffix for known in FORMATS for suffix in known.suffixes} <= AUDIO_SUFFIXES
