"""The units of which files consist."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.audio.file_units import (
    READERS,
    IncompleteError,
    Unit,
    UnitReader,
    reader,
    tag_bytes,
)
from gateway.audio.formats import sniff
from tools.lab.encoded_audio import encode

TONE = (8_000 * np.sin(np.arange(48_000) * 0.1)).astype(np.int16)
FILES = ["ogg", "mp3", "aac", "amr", "webm", "mkv", "m4a", "fragmented mp4", "mov", "aiff", "au",
         "caf", "wma", "wav ima", "avi", "flv", "wv", "tta", "w64", "voc", "rm", "ac3", "latm",
         "mpegts"]  # fmt: skip


def reader_of(data: bytes) -> UnitReader:
    container = sniff(data)
    assert container is not None and container != "undecided"
    found = reader(container, data)
    assert found is not None
    return found


@pytest.mark.parametrize("name", FILES)
def test_units_end_with_the_file(name: str) -> None:
    data = encode(TONE, name, 16_000, 1)
    read, place, audio_bytes = reader_of(data), 0, 0
    while place < len(data):
        unit = read(data + bytes(16), place) or Unit(tag_bytes(data, place), has_audio=False)
        assert unit.length > 0
        place += unit.length
        audio_bytes += unit.length * unit.has_audio
    assert place == len(data)
    assert audio_bytes > 0.5 * len(data)


@pytest.mark.parametrize("behind", [b"This is a text behind it.", b"\0\0#!AMR-WB\n", bytes(16)])
def test_other_bytes_are_no_box(behind: bytes) -> None:
    """They resemble one: a length, and four letters."""
    assert READERS["mov"](behind, 0) is None


def test_frames_of_flac_have_no_length() -> None:
    data, place = encode(TONE, "flac", 16_000, 1), 0
    while (unit := READERS["flac"](data, place)) is not None:
        assert not unit.has_audio
        place += unit.length
    assert data[place] == 0xFF


@pytest.mark.parametrize("name", ["webm", "wma", "au", "caf"])
def test_the_length_of_live_audio_is_unknown(name: str) -> None:
    """A live WebM has clusters, which are entered."""
    data = encode(TONE, name, 16_000, 1, live=True)
    read, place = reader_of(data), 0
    while place < len(data) and (unit := read(data + bytes(16), place)) is not None:
        place += unit.length
    assert (place == len(data)) == (name == "webm")


@pytest.mark.parametrize("name", ["ogg", "tta"])
def test_the_length_of_some_units_needs_more_than_their_first_bytes(name: str) -> None:
    data = encode(TONE, name, 16_000, 1)
    with pytest.raises(IncompleteError):
        reader_of(data)(data[:27], 0)


@pytest.mark.parametrize("name", FILES)
def test_noise_is_no_unit(name: str) -> None:
    data = encode(TONE, name, 16_000, 1)
    assert reader_of(data)(b"\xc1\x83" * 300, 0) is None
