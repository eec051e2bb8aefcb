"""Which container a chunk begins."""

from __future__ import annotations

from typing import get_args

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audio.formats import (
    FORMATS,
    FRAME_HEADER_BYTES,
    FRAMED,
    SNIFF_BYTES_MAX,
    TITLES,
    Container,
    sniff,
)
from tools.lab.encoded_audio import encode

TONE = (8_000 * np.sin(np.arange(24_000) * 0.1)).astype(np.int16)
FILES = {
    "wav": encode(TONE, "wav", 16_000, 1),
    "matroska": encode(TONE, "webm", 48_000, 1),
    "mov": encode(TONE, "m4a", 16_000, 1),
    # No encoder writes these here.
    "amr": b"#!AMR\n" + bytes(100),
    "ape": b"MAC \x96\x0f" + bytes(100),
    "nistsphere": b"NIST_1A\n   1024\n",
    "asf": encode(TONE, "wma", 16_000, 1),
    **{
        name: encode(TONE, name, 16_000, 1)
        for name in ("ogg", "flac", "mp3", "aac", "aiff", "caf", "au", "avi", "flv", "wv", "tta")
    },
    **{name: encode(TONE, name, 16_000, 1) for name in ("w64", "rm", "voc", "ircam", "sox")},
    **{name: encode(TONE, name, 16_000, 1) for name in ("ac3", "mpegts")},
    "loas": encode(TONE, "latm", 16_000, 1),
    "wtv": bytes.fromhex("b7d800203749da11a64e0007e95ead8d") + bytes(100),
    "iff": b"FORM\0\0\x10\x008SVXVHDR" + bytes(100),
    "epaf": b" paf" + bytes(100),
    "pvf": b"PVF1\n1 8000 16\n" + bytes(100),
    "avr": b"2BIT" + bytes(100),
    "gxf": bytes(4) + b"\1\xbc\0\0\0" + bytes(100),
    "dts": bytes.fromhex("7ffe8001fc3c75b0") + bytes(100),
    "mlp": bytes.fromhex("e034ffd8f8726fbb") + bytes(100),
    "truehd": bytes.fromhex("e034ffd8f8726fba") + bytes(100),
    "nut": b"nut/multimedia container\0" + bytes(100),
    "mpeg": bytes.fromhex("000001ba44000400") + bytes(100),
    "mxf": bytes.fromhex("060e2b34020501010d010201010204") + bytes(100),
    "ast": b"STRM\0\1\x47\0\0\1\0\x10" + bytes(100),
    "smjpeg": b"\0\x0aSMJPEG" + bytes(100),
}
FRAMES = {"aac", "ac3", "loas", "mpegts"}  # They have no signature.
SHORTEST = 26  # Longer than every signature.


def without_id3(mp3: bytes) -> bytes:
    """The bare frames: the tag's size is in its header, seven bits a byte."""
    a, b, c, d = mp3[6:10]
    return mp3[10 + (a << 21 | b << 14 | c << 7 | d) :]


BARE_MP3 = without_id3(FILES["mp3"])


def test_messages_name_usual_containers_only() -> None:
    assert TITLES.endswith("VOC or NIST SPHERE")


def test_every_container_is_in_the_list_once() -> None:
    assert [known.container for known in FORMATS] == list(get_args(Container))
    assert set(FILES) == {known.container for known in FORMATS}
    assert TITLES.startswith("WAV, WebM, Ogg, FLAC, MP3, MP4, AAC, ")
    assert all(known.container in av.formats_available for known in FORMATS)


@pytest.mark.parametrize("name", FILES)
def test_files_are_known_by_their_first_bytes(name: str) -> None:
    assert sniff(FILES[name]) == name
    assert name in FRAMES or sniff(FILES[name][:SHORTEST]) == name


@pytest.mark.parametrize("name", sorted(FILES.keys() - FRAMES))
def test_too_few_bytes_are_undecided(name: str) -> None:
    shortest = next(n for n in range(1, SHORTEST) if sniff(FILES[name][:n]) == name)
    for length in range(1, shortest):
        assert sniff(FILES[name][:length]) == "undecided"


def test_an_ogg_page_inside_a_stream_starts_no_container() -> None:
    second_page = FILES["ogg"].index(b"OggS", 4)
    assert sniff(FILES["ogg"][second_page:]) is None


def test_a_riff_file_that_is_not_wave_is_not_known() -> None:
    assert sniff(b"RIFF\x00\x00\x00\x00ACON") is None


def test_mp3_without_tag_is_known_by_three_frames() -> None:
    assert sniff(BARE_MP3) == "mp3"
    second = BARE_MP3.index(BARE_MP3[:2], 4)
    third = BARE_MP3.index(BARE_MP3[:2], second + 4)
    assert sniff(BARE_MP3[: third + FRAME_HEADER_BYTES]) == "mp3"
    assert sniff(BARE_MP3[: third + FRAME_HEADER_BYTES - 1]) == "undecided"
    broken = bytearray(BARE_MP3)
    broken[third] = 0
    assert sniff(bytes(broken)) is None


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_frames_of_every_rate_have_the_length_we_think(rate_hz: int, channels: int) -> None:
    assert sniff(without_id3(encode(TONE, "mp3", rate_hz, channels))) == "mp3"


@given(st.binary(min_size=4, max_size=30_000))
def test_nothing_stays_undecided_for_long(data: bytes) -> None:
    if len(data) >= SNIFF_BYTES_MAX:
        assert sniff(data) != "undecided"
    assert sniff(data) in {None, "undecided", *FILES}


@pytest.mark.parametrize(("name", "needed"), [("ac3", 3), ("latm", 3), ("mpegts", 5)])
def test_formats_without_signature_are_known_by_frames(name: str, needed: int) -> None:
    data = encode(TONE, name, 16_000, 1)
    container = sniff(data)
    assert container in FRAMES
    parse = FRAMED[data[:1]][0][1]
    offset = 0
    for _ in range(needed - 1):
        frame = parse(data[offset : offset + FRAME_HEADER_BYTES])
        assert frame is not None
        offset += frame[1]
    assert sniff(data[: offset + FRAME_HEADER_BYTES]) == container
    assert sniff(data[: offset + FRAME_HEADER_BYTES - 1]) == "undecided"
    assert sniff(data[:offset] + bytes(len(data))) is None


def test_a_further_partition_of_mxf_begins_no_file() -> None:
    assert sniff(bytes.fromhex("060e2b34020501010d010201010304") + bytes(100)) is None


def test_raw_pcm_does_not_look_like_mp3() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        loudness = 2.0 ** rng.uniform(0, 15)
        pcm = (rng.standard_normal(3_000) * loudness).clip(-32768, 32767).astype("<i2")
        # The first sample that could be the sync word of a frame.
        pcm[0] = rng.choice(np.frombuffer(b"\xff\xfb\xff\xf3\xff\xfa\xff\xf2", "<i2"))
        assert sniff(pcm.tobytes()) is None
    for constant in range(-32768, 32767, 7):
        assert sniff(np.full(SNIFF_BYTES_MAX // 2 + 1, constant, "<i2").tobytes()) is None
