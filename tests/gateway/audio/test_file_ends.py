"""Chunks that hold one whole file, files behind others, and the last pages of Ogg."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.audio import file_ends
from gateway.audio.file_ends import WHOLE_FILE_BYTES_MAX, NextFile, OggPages, holds_whole_file
from gateway.audio.formats import Container, sniff
from tools.lab.encoded_audio import encode

TONE = (8_000 * np.sin(np.arange(48_000) * 0.1)).astype(np.int16)
NAMES = ["m4a", "mov", "mp3", "flac", "webm", "mkv"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_whole_file_is_known_by_its_header(name: str, rate_hz: int, channels: int) -> None:
    assert holds_whole_file(encode(TONE, name, rate_hz, channels))


@pytest.mark.parametrize("name", NAMES)
def test_no_slice_of_a_file_is_one(name: str) -> None:
    data = encode(TONE, name, 16_000, 1)
    for end in (*range(0, len(data), 97), *range(len(data) - 300, len(data))):
        assert not holds_whole_file(data[:end])
    assert not holds_whole_file(data[1:])
    # Two files in a row end there, too, but only one of the codecs shows it.
    assert holds_whole_file(data + data) == (name == "flac")


@pytest.mark.parametrize("name", ["webm", "mp3", "flac"])
def test_a_live_stream_declares_no_end(name: str) -> None:
    assert not holds_whole_file(encode(TONE, name, 48_000, 1, live=True))


def test_a_fragmented_file_may_continue() -> None:
    assert not holds_whole_file(encode(TONE, "fragmented mp4", 48_000, 1))


def test_an_mp3_may_end_with_an_old_tag() -> None:
    data = encode(TONE, "mp3", 16_000, 1)
    assert holds_whole_file(data + b"TAG" + bytes(125))
    assert not holds_whole_file(data + b"TAG" + bytes(124))


def test_other_bytes_and_long_files_are_not_looked_at() -> None:
    for data in (b"", b"fLaC", b"\x1a\x45\xdf\xa3", bytes(100), encode(TONE, "wav", 16_000, 1)):
        assert not holds_whole_file(data)
    long = np.random.default_rng(1).integers(-9_999, 9_999, WHOLE_FILE_BYTES_MAX).astype(np.int16)
    assert not holds_whole_file(encode(long, "flac", 16_000, 1))


@pytest.mark.parametrize(
    ("name", "container"),
    [("m4a", "mov"), ("fragmented mp4", "mov"), ("mov", "mov"), ("aiff", "aiff"), ("au", "au")],
)
@pytest.mark.parametrize("following", ["m4a", "aiff", "au", "flac", "wav"])
@pytest.mark.parametrize("size", [1, 7, 640, 1_000_000])
def test_another_file_is_found_behind_one(
    name: str, container: Container, following: str, size: int
) -> None:
    first, second = (encode(TONE, each, 16_000, 1) for each in (name, following))
    ends, own, rest = NextFile(container), b"", b""
    data = first + second
    place = 0
    while not rest and place < len(data):
        taken, rest = ends.feed(data[place : place + size])
        own += taken
        place += size
    assert own == first
    assert rest and second.startswith(rest)


@pytest.mark.parametrize("name", ["m4a", "aiff", "au"])
def test_without_another_file_nothing_is_lost(name: str) -> None:
    data = encode(TONE, name, 16_000, 1)
    container: Container = "mov" if name == "m4a" else name  # type: ignore[assignment]
    for whole in (data, data + b"abc", data + bytes(50), data[:-5]):
        ends = NextFile(container)
        found = [ends.feed(whole[n : n + 9]) for n in range(0, len(whole), 9)]
        taken = b"".join(taken for taken, _ in found) + ends.held
        # Padding is no audio, though the decoders of AIFF and AU would take it for audio.
        assert whole.startswith(taken) and len(taken) >= min(len(data), len(whole))
        assert not any(rest for _, rest in found)


@pytest.mark.parametrize("live", [False, True])
def test_bytes_behind_the_last_frame_of_flac_are_unknown(live: bool) -> None:
    data = encode(TONE, "flac", 16_000, 1, live=live)
    noise = np.random.default_rng(1).bytes(100_000)
    for behind, unknown_bytes in ((b"", 0), (bytes(9_000), 0), (b"TAG" + noise[:125], 0),
                                  (b"APETAGEX" + noise[:9_000], 0), (noise[:3_000], 3_000),
                                  (noise, 100_000)):  # fmt: skip
        for size in (100, 4_000, 1 << 20):
            ends = NextFile("flac")
            whole = data + behind
            for begin in range(0, len(whole), size):
                _, rest = ends.feed(whole[begin : begin + size])
                assert not rest
            ends.finish()
            # Zeros are not counted.
            assert 0.98 * unknown_bytes <= ends.unknown_bytes <= unknown_bytes
    cut = NextFile("flac")
    cut.feed(data[:-2_000])
    cut.finish()
    assert cut.unknown_bytes <= 2_000


def test_a_short_file_behind_bytes_that_resemble_a_frame_is_found_at_the_end() -> None:
    """The header of AAC declares more bytes than follow, so that only the end shows what it is."""
    first = encode(TONE, "flac", 16_000, 1) + bytes.fromhex("fff14c43ffffe0")
    second = encode(TONE[:4_000], "ac3", 16_000, 1)
    ends = NextFile("flac")
    own, rest = ends.feed(first + second)
    assert not rest
    last, rest = ends.finish()
    assert own + last == first
    assert rest == second


W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000") + bytes(8) + b"wave" + bytes(12)
LENGTHLESS = {
    "w64": W64.replace(b"wave", b"wav?"),
    "rm": b".RMF" + bytes(4) + b"PROP" + bytes(200),
    "ape": b"MAC \xa0\x0f" + bytes(200),
    "voc": b"Creative Voice File\x1a" + bytes(200),
    "flac": b"fLaC" + bytes(200),
    "wav": b"RIFF\0\0\0\0WAVX" + bytes(200),
}


@pytest.mark.parametrize("container", LENGTHLESS)
def test_a_file_with_damaged_lengths_is_taken_forward(container: Container) -> None:
    """Its own beginning is not that of another file, and no unit has no bytes."""
    data = LENGTHLESS[container]
    for size in (7, 33, len(data)):
        ends, fed, own, rest = NextFile(container), b"", b"", b""
        for begin in range(0, len(data), size):
            fed += data[begin : begin + size]
            passed, rest = ends.feed(data[begin : begin + size])
            own += passed
            assert own or not rest
            if rest:
                break
        assert own + ends.held + rest == fed


@pytest.mark.parametrize(
    ("container", "piece"),
    [
        ("flac", b"\xff\xfb\x90\x00"),
        ("flac", b"\xff"),
        ("ogg", b"OggS\0\x02" + bytes(8)),
    ],
)
def test_crafted_bytes_are_examined_a_limited_number_of_times(
    container: Container, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined = 0

    def counted(data: bytes) -> object:
        nonlocal examined
        examined += 1
        return sniff(data)

    monkeypatch.setattr(file_ends, "sniff", counted)
    begin = {"flac": b"fLaC", "ogg": b"OggS", "amr": b"#!AMR\n"}.get(container, b"")
    NextFile(container).feed(begin + bytes(32) + piece * (131_072 // len(piece)))
    assert examined <= 2 * file_ends.CANDIDATES_MAX + 2


@pytest.mark.parametrize("size", [1, 7, 640, 10**9])
def test_the_end_of_an_ogg_stream_is_known(size: int) -> None:
    ogg = encode(TONE, "ogg", 16_000, 1)
    pages = OggPages()
    reported = [pages.feed(ogg[place : place + size]) for place in range(0, len(ogg), size)]
    assert reported == [False] * (len(reported) - 1) + [True]


def test_an_ogg_stream_followed_by_another_in_the_same_chunk_has_not_ended() -> None:
    pages, ogg = OggPages(), encode(TONE, "ogg", 16_000, 1)
    assert not pages.feed(ogg + ogg[:40])
    assert pages.feed(ogg[40:])


def test_an_ogg_stream_out_of_sync_never_ends() -> None:
    ogg = bytearray(encode(TONE, "ogg", 16_000, 1))
    ogg[ogg.index(b"OggS", 4)] = 0
    assert not OggPages().feed(bytes(ogg))
