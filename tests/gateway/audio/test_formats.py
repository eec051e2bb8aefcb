"""Which container a chunk begins."""

from __future__ import annotations

from typing import get_args

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audio.formats import FORMATS, TITLES, Container, OggPages, sniff
from tests.gateway.encoded_audio import encode

TONE = (8_000 * np.sin(np.arange(24_000) * 0.1)).astype(np.int16)
FILES = {
    "wav": encode(TONE, "wav", 16_000, 1),
    "matroska": encode(TONE, "webm", 48_000, 1),
    "ogg": encode(TONE, "ogg", 48_000, 1),
    "flac": encode(TONE, "flac", 16_000, 1),
    "mp3": encode(TONE, "mp3", 16_000, 1),
}


def without_id3(mp3: bytes) -> bytes:
    """The bare frames: the tag's size is in its header, seven bits a byte."""
    a, b, c, d = mp3[6:10]
    return mp3[10 + (a << 21 | b << 14 | c << 7 | d) :]


BARE_MP3 = without_id3(FILES["mp3"])


def test_every_container_is_in_the_list_once() -> None:
    assert [known.container for known in FORMATS] == list(get_args(Container))
    assert set(FILES) == {known.container for known in FORMATS}
    assert TITLES == "WAV, WebM, Ogg, FLAC or MP3"
    assert all(known.container in av.formats_available for known in FORMATS)


@pytest.mark.parametrize("name", FILES)
def test_files_are_known_by_their_first_bytes(name: str) -> None:
    assert sniff(FILES[name]) == name
    assert sniff(FILES[name][:12]) == name


@pytest.mark.parametrize("name", FILES)
def test_too_few_bytes_are_undecided(name: str) -> None:
    shortest = next(n for n in range(1, 13) if sniff(FILES[name][:n]) == name)
    for length in range(1, shortest):
        assert sniff(FILES[name][:length]) == "undecided"


def test_an_ogg_page_inside_a_stream_starts_no_container() -> None:
    second_page = FILES["ogg"].index(b"OggS", 4)
    assert sniff(FILES["ogg"][second_page:]) is None


def test_a_riff_file_that_is_not_wave_is_not_known() -> None:
    assert sniff(b"RIFF\x00\x00\x00\x00AVI LIST") is None


def test_mp3_without_tag_is_known_by_three_frames() -> None:
    assert sniff(BARE_MP3) == "mp3"
    second = BARE_MP3.index(BARE_MP3[:2], 4)
    third = BARE_MP3.index(BARE_MP3[:2], second + 4)
    assert sniff(BARE_MP3[: third + 4]) == "mp3"
    assert sniff(BARE_MP3[: third + 3]) == "undecided"
    broken = bytearray(BARE_MP3)
    broken[third] = 0
    assert sniff(bytes(broken)) is None


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_frames_of_every_rate_have_the_length_we_think(rate_hz: int, channels: int) -> None:
    assert sniff(without_id3(encode(TONE, "mp3", rate_hz, channels))) == "mp3"


@given(st.binary(min_size=4, max_size=5_000))
def test_nothing_stays_undecided_for_long(data: bytes) -> None:
    if len(data) > 4_400:
        assert sniff(data) != "undecided"
    assert sniff(data) in {None, "undecided", *FILES}


def test_raw_pcm_does_not_look_like_mp3() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        loudness = 2.0 ** rng.uniform(0, 15)
        pcm = (rng.standard_normal(3_000) * loudness).clip(-32768, 32767).astype("<i2")
        # The first sample that could be the sync word of a frame.
        pcm[0] = rng.choice(np.frombuffer(b"\xff\xfb\xff\xf3\xff\xfa\xff\xf2", "<i2"))
        assert sniff(pcm.tobytes()) is None
    for constant in range(-32768, 32767, 7):
        assert sniff(np.full(3_000, constant, "<i2").tobytes()) is None


@pytest.mark.parametrize("size", [1, 7, 640, 10**9])
def test_the_end_of_an_ogg_stream_is_known(size: int) -> None:
    ogg = FILES["ogg"]
    pages = OggPages()
    told = [pages.feed(ogg[place : place + size]) for place in range(0, len(ogg), size)]
    assert told == [False] * (len(told) - 1) + [True]


def test_an_ogg_stream_followed_by_another_in_the_same_chunk_has_not_ended() -> None:
    pages = OggPages()
    assert not pages.feed(FILES["ogg"] + FILES["ogg"][:40])
    assert pages.feed(FILES["ogg"][40:])


def test_an_ogg_stream_out_of_sync_never_ends() -> None:
    ogg = bytearray(FILES["ogg"])
    ogg[ogg.index(b"OggS", 4)] = 0
    assert not OggPages().feed(bytes(ogg))
