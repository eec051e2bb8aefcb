"""The incremental WAV reader."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audio.formats import AudioError
from gateway.audio.wav import (
    HEADER_BYTES_MAX,
    DeclaredAudio,
    OtherCodecError,
    WavFormat,
    WavPcm,
    WavReader,
)

RAMP = np.arange(-2_000, 2_000, 7, dtype=np.int16)
GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    head = name + struct.pack("<I", len(body) if length is None else length)
    return head + body + b"\0" * (len(body) & 1)


def fmt(
    coding: int = 1,
    channels: int = 1,
    rate_hz: int = 16_000,
    bits: int = 16,
    block_align: int | None = None,
) -> bytes:
    align = channels * bits // 8 if block_align is None else block_align
    body = struct.pack("<HHIIHH", coding, channels, rate_hz, rate_hz * align, align, bits)
    return chunk(b"fmt ", body)


def wav(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def fed(reader: WavReader, data: bytes) -> bytes:
    return b"".join(piece.pcm for piece in reader.feed(data))


def pcm_of(data: bytes) -> np.ndarray:
    reader = WavReader()
    return np.frombuffer(fed(reader, data) + reader.finish(), "<i2")


def test_sixteen_bit_mono_is_unchanged() -> None:
    reader = WavReader()
    assert fed(reader, wav(fmt(rate_hz=22_050), chunk(b"data", RAMP.tobytes()))) == RAMP.tobytes()
    assert reader.complete
    assert reader.format is not None
    assert reader.format.sample_rate_hz == 22_050


@pytest.mark.parametrize(
    ("declared", "form", "differences"),
    [
        ({}, {}, ""),
        ({"sample_rate_hz": 16_000, "channels": 1, "encoding": "linear16"}, {}, ""),
        ({"sample_rate_hz": 8_000}, {}, "sample rate 16000, not 8000"),
        ({"channels": 2}, {}, "channels 1, not 2"),
        ({"encoding": "mulaw"}, {}, "encoding linear16, not mulaw"),
        ({"encoding": "mulaw"}, {"coding": 7, "bits": 8}, ""),
        ({"encoding": "mulaw"}, {"coding": 6, "bits": 8}, "encoding alaw, not mulaw"),
        ({"encoding": "linear32"}, {"coding": 3, "bits": 32}, "encoding float32, not linear32"),
        (
            {"sample_rate_hz": 8_000, "channels": 2},
            {},
            "sample rate 16000, not 8000; channels 1, not 2",
        ),
    ],
)
def test_a_header_may_contradict_what_the_client_declares(
    declared: dict[str, Any], form: dict[str, Any], differences: str
) -> None:
    header: dict[str, Any] = {
        "coding": 1,
        "channels": 1,
        "sample_rate_hz": 16_000,
        "bits": 16,
        **form,
    }
    message = DeclaredAudio(**declared).contradiction(WavFormat(**header))
    assert message.removeprefix("the WAV header is used: ") == differences


def test_channels_are_averaged() -> None:
    frames = np.stack([RAMP, RAMP // 2, 0 * RAMP], axis=1).astype("<i2")
    got = pcm_of(wav(fmt(channels=3), chunk(b"data", frames.tobytes())))
    assert np.abs(got - frames.mean(axis=1)).max() <= 0.5


@pytest.mark.parametrize(
    ("coding", "bits", "stored"),
    [
        (1, 8, (RAMP // 256 + 128).astype(np.uint8).tobytes()),
        (1, 24, b"".join(struct.pack("<i", int(x) * 65_536)[1:] for x in RAMP)),
        (1, 32, (RAMP.astype("<i4") * 65_536).tobytes()),
        (3, 32, (RAMP / 32_768).astype("<f4").tobytes()),
    ],
    ids=["8 bit", "24 bit", "32 bit", "float"],
)
def test_other_widths_have_the_same_scale(coding: int, bits: int, stored: bytes) -> None:
    got = pcm_of(wav(fmt(coding=coding, bits=bits), chunk(b"data", stored)))
    assert np.abs(got - RAMP).max() <= (256 if bits == 8 else 0)


def test_nan_infinite_and_too_large_floats_are_clipped() -> None:
    stored = np.array([np.nan, np.inf, -np.inf, 7.0, -7.0, 0.5], "<f4").tobytes()
    got = pcm_of(wav(fmt(coding=3, bits=32), chunk(b"data", stored)))
    assert got.tolist() == [0, 32_767, -32_768, 32_767, -32_768, 16_384]


def test_g711_known_values() -> None:
    # ITU-T G.711: the smallest and largest magnitudes of both signs.
    a_law = pcm_of(wav(fmt(coding=6, bits=8), chunk(b"data", bytes([0xD5, 0x55, 0xAA, 0x2A]))))
    assert a_law.tolist() == [8, -8, 32_256, -32_256]
    mu_law = pcm_of(wav(fmt(coding=7, bits=8), chunk(b"data", bytes([0xFF, 0x7F, 0x80, 0x00]))))
    assert mu_law.tolist() == [0, 0, 32_124, -32_124]


def extensible(coding: int = 1, tail: bytes = GUID_TAIL) -> bytes:
    body = struct.pack("<HHIIHH", 0xFFFE, 1, 16_000, 32_000, 2, 16)
    return chunk(b"fmt ", body + struct.pack("<HHIH", 22, 16, 4, coding) + tail)


def test_the_extensible_format_is_read_by_its_subformat() -> None:
    assert (pcm_of(wav(extensible(), chunk(b"data", RAMP.tobytes()))) == RAMP).all()
    for other in (extensible(coding=2), extensible(tail=bytes(14))):
        with pytest.raises(OtherCodecError):
            WavReader().feed(wav(other))


def test_chunks_around_the_data_are_skipped() -> None:
    reader = WavReader()
    data = wav(
        chunk(b"LIST", b"odd"),
        fmt(),
        chunk(b"bext", bytes(600)),
        chunk(b"data", RAMP.tobytes()),
        chunk(b"LIST", b"INFOISFT"),
        chunk(b"id3 ", b"ID3" + bytes(8)),
        chunk(b"data", b""),
        chunk(b"LIST", bytes(RAMP)),
    )
    assert fed(reader, data) == RAMP.tobytes()
    assert reader.complete


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_an_unknown_length_means_until_the_end(length: int) -> None:
    reader = WavReader()
    got = fed(reader, wav(fmt(), chunk(b"data", RAMP.tobytes(), length)))
    got += fed(reader, RAMP.tobytes())
    got += reader.finish()
    assert got == 2 * RAMP.tobytes()
    assert not reader.complete
    reader.finish()


def test_audio_after_a_declared_length_of_the_first_part() -> None:
    reader = WavReader()
    assert fed(reader, wav(fmt(), chunk(b"data", RAMP.tobytes()))) == RAMP.tobytes()
    assert reader.complete
    # Low and negative samples: no chunk is called so.
    more = RAMP.tobytes() * 15
    assert fed(reader, more[:1_000]) == b""  # Too few to judge.
    assert fed(reader, more[1_000:]) + reader.finish() == more
    assert not reader.complete


def test_the_last_audio_is_returned_once() -> None:
    reader = WavReader()
    fed(reader, wav(fmt(), chunk(b"data", RAMP.tobytes())) + RAMP[:100].tobytes())
    assert reader.finish() == RAMP[:100].tobytes()
    assert reader.finish() == b"" and reader.feed(b"") == []


def test_half_a_sample_at_the_end_is_forgotten() -> None:
    assert len(pcm_of(wav(fmt(), chunk(b"data", b"\1\2\3", 999)[:-1]))) == 1
    reader = WavReader()
    assert fed(reader, wav(fmt(), chunk(b"data", b"\1\2\3"))) == b"\1\2"
    assert reader.complete


@given(
    cuts=st.lists(st.integers(0, 3_000), max_size=12),
    channels=st.integers(1, 8),
    bits=st.sampled_from([8, 16, 24, 32]),
    length=st.sampled_from([None, 0, 0xFFFFFFFF]),
)
def test_the_pcm_does_not_depend_on_the_chunks(
    cuts: list[int], channels: int, bits: int, length: int | None
) -> None:
    body = bytes(n * 37 % 256 for n in range(channels * bits // 8 * 50))
    trailer = chunk(b"LIST", b"INFO") if length is None else b""
    data = wav(chunk(b"JUNK", bytes(9)), fmt(channels=channels, bits=bits))
    data += chunk(b"data", body, length) + trailer
    at_once = fed(WavReader(), data)
    reader = WavReader()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [fed(reader, data[a:b]) for a, b in pairwise(places)]
    assert b"".join(pieces) == at_once
    assert reader.complete == (length is None)


@pytest.mark.parametrize(
    "data",
    [
        b"RIFF" + wav()[4:8] + b"AVI ",
        wav(fmt(rate_hz=0)),
        wav(fmt(rate_hz=1)),
        wav(fmt(rate_hz=192_001)),
        wav(fmt(channels=0)),
        wav(fmt(channels=65)),
        wav(fmt(channels=65_535, block_align=65_535)),
        wav(fmt(bits=0)),
        wav(fmt(bits=40)),
        wav(fmt(coding=3, bits=16)),
        wav(chunk(b"data", RAMP.tobytes())),
        wav(fmt(), fmt()),
        wav(chunk(b"fmt ", bytes(15))),
        wav(chunk(b"fmt ", b"", 1 << 30)),
    ],
)
def test_a_bad_header_is_an_error(data: bytes) -> None:
    with pytest.raises(AudioError) as raised:
        WavReader().feed(data + bytes(16))
    assert raised.value.code == "bad_audio"


@pytest.mark.parametrize("end", [0, 5, 12, 20, 36, 40])
def test_a_header_cut_off_is_an_error_at_the_end(end: int) -> None:
    reader = WavReader()
    assert fed(reader, wav(fmt(), chunk(b"data", RAMP.tobytes()))[:end]) == b""
    with pytest.raises(AudioError):
        reader.finish()


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_audio_or_an_audio_error(junk: bytes, has_format: bool) -> None:
    reader = WavReader()
    try:
        reader.feed(b"RIFF\0\0\0\0WAVE" + (fmt() if has_format else b"") + junk)
        reader.finish()
    except AudioError as error:
        assert error.code == "bad_audio"


def test_a_header_without_end_is_refused_with_the_name_of_the_limit() -> None:
    reader = WavReader()
    reader.feed(wav()[:12] + chunk(b"JUNK", b"", 0xFFFFFFF0))
    with pytest.raises(AudioError, match="HEADER_BYTES_MAX"):
        for _ in range(HEADER_BYTES_MAX // (1 << 20) + 1):
            reader.feed(bytes(1 << 20))


def test_a_large_chunk_before_or_after_the_audio_is_skipped() -> None:
    picture = chunk(b"LIST", bytes(6_000_000))
    assert fed(WavReader(), wav(picture, fmt(), chunk(b"data", RAMP.tobytes()), picture)) == (
        RAMP.tobytes()
    )


@pytest.mark.parametrize("slice_bytes", [1, 700, 1_000_000])
def test_further_audio_chunks_are_read(slice_bytes: int) -> None:
    sound = RAMP.tobytes()
    data = wav(fmt(), chunk(b"data", sound), chunk(b"LIST", b"INFO"), chunk(b"data", sound))
    reader, pcm = WavReader(), b""
    for place in range(0, len(data), slice_bytes):
        pcm += fed(reader, data[place : place + slice_bytes])
    assert pcm == 2 * sound and reader.complete


# Recorders of Android write these.
@pytest.mark.parametrize("block_align", [0, 1, 4, 16])
def test_wrong_block_and_byte_rates_do_not_matter(block_align: int) -> None:
    header = fmt(block_align=block_align)
    assert (pcm_of(wav(header, chunk(b"data", RAMP.tobytes()))) == RAMP).all()


def test_floats_of_64_bits_are_read() -> None:
    stored = (RAMP / 32_768).astype("<f8").tobytes()
    assert (pcm_of(wav(fmt(coding=3, bits=64), chunk(b"data", stored))) == RAMP).all()


def big_endian(data: bytes) -> bytes:
    """A WAV file of one ``fmt`` and one ``data`` chunk as RIFX, its samples excepted."""
    swapped = bytearray(b"RIFX" + data[4:])
    for place, width in ((4, 4), (16, 4), (20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2)):
        swapped[place : place + width] = swapped[place : place + width][::-1]
    swapped[40:44] = swapped[40:44][::-1]
    return bytes(swapped)


@pytest.mark.parametrize(
    ("coding", "bits", "stored"),
    [
        (1, 16, RAMP.astype(">i2").tobytes()),
        (1, 24, b"".join(struct.pack(">i", int(x) * 65_536)[:3] for x in RAMP)),
        (3, 32, (RAMP / 32_768).astype(">f4").tobytes()),
    ],
)
@pytest.mark.parametrize("slice_bytes", [1, 50, 1_000_000])
def test_rifx_is_big_endian(coding: int, bits: int, stored: bytes, slice_bytes: int) -> None:
    data = big_endian(wav(fmt(coding=coding, bits=bits), chunk(b"data", stored)))
    reader = WavReader()
    parts = [data[n : n + slice_bytes] for n in range(0, len(data), slice_bytes)]
    pcm = b"".join(fed(reader, part) for part in parts) + reader.finish()
    assert pcm == RAMP.tobytes()
    assert reader.complete


@pytest.mark.parametrize("declared", [0xFFFFFFFF, len(RAMP) * 2])
def test_rf64_has_its_length_in_a_chunk_of_its_own(declared: int) -> None:
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, len(RAMP) * 2, 0, 0))
    data = wav(ds64, fmt(), chunk(b"data", RAMP.tobytes(), declared), chunk(b"LIST", b"INFO"))
    assert (pcm_of(b"RF64" + data[4:]) == RAMP).all()


@pytest.mark.parametrize("coding", [0x02, 0x11, 0x31, 0x55])
def test_other_codecs_are_left_to_a_library_with_all_bytes(coding: int) -> None:
    audio = bytes(range(200))
    data = wav(chunk(b"LIST", b"INFO"), fmt(coding=coding, bits=4), chunk(b"data", audio))
    for cut in (20, 50, len(data) - 100):
        reader = WavReader()
        with pytest.raises(OtherCodecError) as raised:
            reader.feed(data[:cut])
            reader.feed(data[cut:])
        assert (raised.value.data + data[cut:]).endswith(audio)
        assert raised.value.data.startswith(
            b"RIFF\xff\xff\xff\xffWAVE" + fmt(coding=coding, bits=4)
        )


@pytest.mark.parametrize("size", [1, 7, 100, 1_000_000])
def test_a_file_behind_another_is_read_with_its_own_format(size: int) -> None:
    first = wav(fmt(), chunk(b"data", RAMP.tobytes() + b"\1"))
    second = wav(fmt(rate_hz=8_000, channels=2), chunk(b"data", np.repeat(RAMP, 2).tobytes()))
    data = first + second + first
    reader = WavReader()
    pcm: dict[int, bytes] = {8_000: b"", 16_000: b""}
    for place in range(0, len(data), size):
        for piece in reader.feed(data[place : place + size]):
            assert isinstance(piece, WavPcm)
            pcm[piece.format.sample_rate_hz] += piece.pcm
    assert pcm == {8_000: RAMP.tobytes(), 16_000: 2 * RAMP.tobytes()}
    assert reader.complete


def test_a_channel_in_opposite_phase_does_not_cancel_the_other() -> None:
    frames = np.stack([RAMP, -RAMP], axis=1).astype("<i2")
    reader = WavReader()
    got = fed(reader, wav(fmt(channels=2), chunk(b"data", frames.tobytes()))) + reader.finish()
    assert (np.frombuffer(got, "<i2") == RAMP).all()
    assert reader.notice == "of 2 audio channels, the loudest alone was used: number 1"


def test_24_bits_may_stand_in_32() -> None:
    wide = (RAMP.astype("<i4") * 65_536).tobytes()
    body = struct.pack("<HHIIHH", 1, 1, 16_000, 64_000, 4, 24)
    found = pcm_of(wav(chunk(b"fmt ", body), chunk(b"data", wide)))
    assert found.tobytes() == RAMP.tobytes()


@pytest.mark.parametrize(("coding", "named"), [(0x38, "NMS ADPCM"), (0x40, "G.721 ADPCM")])
def test_codecs_that_libavcodec_misreads_are_named(coding: int, named: str) -> None:
    with pytest.raises(AudioError, match=named):
        WavReader().feed(wav(fmt(coding=coding, bits=4), chunk(b"data", bytes(100))))


SOUND = (8_000 * np.sin(np.arange(16_000) * 0.1)).astype("<i2").tobytes()


@pytest.mark.parametrize("size", [700, 1_000_000])
@pytest.mark.parametrize(
    ("behind", "said"),
    [
        (np.random.default_rng(1).bytes(40_000), "no audio"),
        (b"<html>nine two five</html>" * 1_000, "text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20_000), "PNG"),
        (np.random.default_rng(2).bytes(1_000), "no audio"),
    ],
)
def test_what_follows_the_audio_and_is_none_is_named(behind: bytes, said: str, size: int) -> None:
    reader, pcm = WavReader(), b""
    data = wav(fmt(), chunk(b"data", SOUND)) + behind
    for place in range(0, len(data), size):
        pcm += fed(reader, data[place : place + size])
        if reader.fault is not None:
            break
    pcm += reader.finish()
    assert pcm == SOUND
    assert reader.fault is not None and said in str(reader.fault)


@pytest.mark.parametrize("begin", [b"OggS\0\2", b"fLaC\0\0\0\x22", b"ID3\4\0", b".snd\0\0"])
@pytest.mark.parametrize("size", [700, 1_000_000])
def test_a_file_of_another_container_may_follow(begin: bytes, size: int) -> None:
    reader = WavReader()
    following = begin + bytes(2_000)
    data = wav(fmt(), chunk(b"data", SOUND)) + following
    pcm, place = b"", 0
    while place < len(data) and not reader.rest:
        pcm += fed(reader, data[place : place + size])
        place += size
    assert pcm == SOUND
    assert following.startswith(reader.rest) and reader.rest
