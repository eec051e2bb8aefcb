"""The incremental WAV reader."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audio.formats import AudioError
from gateway.audio.wav import HEADER_BYTES_MAX, WavReader

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


def pcm_of(data: bytes) -> np.ndarray:
    reader = WavReader()
    pcm = reader.feed(data)
    reader.finish()
    return np.frombuffer(pcm, "<i2")


def test_sixteen_bit_mono_is_unchanged() -> None:
    reader = WavReader()
    assert reader.feed(wav(fmt(rate_hz=22_050), chunk(b"data", RAMP.tobytes()))) == RAMP.tobytes()
    assert reader.complete
    assert reader.format is not None
    assert reader.format.sample_rate_hz == 22_050


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
    for wrong in (extensible(coding=2), extensible(tail=bytes(14))):
        with pytest.raises(AudioError):
            WavReader().feed(wav(wrong))


def test_chunks_around_the_data_are_skipped() -> None:
    reader = WavReader()
    data = wav(
        chunk(b"LIST", b"odd"),
        fmt(),
        chunk(b"bext", bytes(600)),
        chunk(b"data", RAMP.tobytes()),
        chunk(b"LIST", b"INFOISFT"),
        chunk(b"id3 ", b"ID3" + bytes(8)),
    )
    assert reader.feed(data) == RAMP.tobytes()
    assert reader.complete


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_an_unknown_length_means_until_the_end(length: int) -> None:
    reader = WavReader()
    got = reader.feed(wav(fmt(), chunk(b"data", RAMP.tobytes(), length)))
    got += reader.feed(RAMP.tobytes())
    assert got == 2 * RAMP.tobytes()
    assert not reader.complete
    reader.finish()


def test_audio_after_a_declared_length_of_the_first_part() -> None:
    reader = WavReader()
    assert reader.feed(wav(fmt(), chunk(b"data", RAMP.tobytes()))) == RAMP.tobytes()
    assert reader.complete
    # Low and negative samples: no chunk is called so.
    assert reader.feed(RAMP.tobytes()) == RAMP.tobytes()
    assert not reader.complete


def test_half_a_sample_at_the_end_is_forgotten() -> None:
    assert len(pcm_of(wav(fmt(), chunk(b"data", b"\1\2\3", 999)[:-1]))) == 1
    reader = WavReader()
    assert reader.feed(wav(fmt(), chunk(b"data", b"\1\2\3"))) == b"\1\2"
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
    at_once = WavReader().feed(data)
    reader = WavReader()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [reader.feed(data[a:b]) for a, b in pairwise(places)]
    assert b"".join(pieces) == at_once
    assert reader.complete == (length is None)


@pytest.mark.parametrize(
    "data",
    [
        b"RIFX" + wav()[4:],
        wav(fmt(rate_hz=0)),
        wav(fmt(rate_hz=1)),
        wav(fmt(rate_hz=192_001)),
        wav(fmt(channels=0)),
        wav(fmt(channels=9)),
        wav(fmt(channels=65_535, block_align=65_535)),
        wav(fmt(block_align=0)),
        wav(fmt(block_align=4)),
        wav(fmt(bits=7, block_align=1)),
        wav(fmt(bits=0)),
        wav(fmt(coding=2, bits=4)),
        wav(fmt(coding=85)),
        wav(fmt(coding=3, bits=16)),
        wav(fmt(coding=6, bits=16)),
        wav(chunk(b"data", RAMP.tobytes())),
        wav(fmt(), fmt()),
        wav(chunk(b"fmt ", bytes(15))),
        wav(chunk(b"fmt ", b"", 1 << 30)),
        wav(chunk(b"JUNK", bytes(HEADER_BYTES_MAX + 1)), fmt()),
    ],
)
def test_a_bad_header_is_an_error(data: bytes) -> None:
    with pytest.raises(AudioError) as raised:
        WavReader().feed(data + bytes(16))
    assert raised.value.code == "bad_audio"


@pytest.mark.parametrize("end", [0, 5, 12, 20, 36, 40])
def test_a_header_cut_off_is_an_error_at_the_end(end: int) -> None:
    reader = WavReader()
    assert reader.feed(wav(fmt(), chunk(b"data", RAMP.tobytes()))[:end]) == b""
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
