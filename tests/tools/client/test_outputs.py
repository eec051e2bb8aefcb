"""Names and formats of transcripts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asr_client import outputs as o
from asr_client.sources import Source

ONE = [Source("a/talk.mp3", 1)]
TWO = [Source("a/talk.mp3", 1), Source("b/speech.wav", 1)]


def test_the_format_is_that_of_f_or_of_the_suffix_of_o_or_text() -> None:
    assert o.format_of(None, None) == "txt"
    assert o.format_of(None, "x.SRT") == "srt"
    assert o.format_of(None, "x.text") == "txt"
    assert o.format_of("vtt", "x.vtt") == o.format_of("vtt", "x.captions") == "vtt"
    with pytest.raises(o.OutputError, match=r"-f vtt would write vtt into a file named \.srt"):
        o.format_of("vtt", "x.srt")
    assert o.format_of(None, "some.dir/") == "txt"
    with pytest.raises(o.OutputError, match=r"\.pdf names no format"):
        o.format_of(None, "x.pdf")


def test_without_o_everything_goes_to_standard_output() -> None:
    assert o.paths(TWO, None, "txt") == [None, None]
    assert o.paths(ONE, None, "srt") == o.paths(ONE, "-", "srt") == [None]
    with pytest.raises(o.OutputError, match="needs a directory"):
        o.paths(TWO, None, "srt")


def test_o_is_a_file_of_one_source_and_a_directory_of_several(tmp_path: Path) -> None:
    file, directory = tmp_path / "x.srt", tmp_path / "new"
    assert o.paths(ONE, str(file), "srt") == [file]
    assert o.paths(TWO, str(directory), "vtt") == [directory / "talk.vtt", directory / "speech.vtt"]
    assert o.paths(ONE, str(directory), "vtt") == [directory / "talk.vtt"]
    assert o.paths(ONE, f"{tmp_path}/more/", "txt") == [tmp_path / "more" / "talk.txt"]
    with pytest.raises(o.OutputError, match="several sources need a directory"):
        o.paths(TWO, str(file), "srt")


def test_a_directory_that_cannot_be_written_to_is_known_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new" / "x.srt"
    assert o.paths(ONE, str(new), "srt") == [new] and new.parent.is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    for sources, output in ((ONE, "x.srt"), (TWO, ""), (ONE, "file/x.srt"), (TWO, "file/new/")):
        with pytest.raises(OSError, match=str(tmp_path)):
            o.paths(sources, f"{tmp_path}/{output}", "srt")


def test_no_transcript_overwrites_another(tmp_path: Path) -> None:
    sources = [Source(name, 1) for name in ("a/x.wav", "a/x.mp3", "b/x.mp3", "y.mp3")]
    found = [path.name for path in o.paths(sources, str(tmp_path), "txt") if path]
    assert found == ["x.wav.txt", "x.mp3.txt", "x.mp3-2.txt", "y.txt"]
