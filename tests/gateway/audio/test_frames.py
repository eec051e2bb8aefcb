"""Frame headers, in streams that encoders wrote."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.audio.formats import FrameParser, find_frames
from gateway.audio.frames import (
    aac_frame,
    ac3_frame,
    flac_frame,
    loas_frame,
    mp3_frame,
    mp3_frame_s,
    ts_packet,
    xing,
)
from tools.lab.encoded_audio import encode

TONE = (8_000 * np.sin(np.arange(48_000) * 0.1)).astype(np.int16)


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_aac_frames_follow_each_other(rate_hz: int, channels: int) -> None:
    data, offset, shared = encode(TONE, "aac", rate_hz, channels), 0, set()
    while offset < len(data):
        frame = aac_frame(data[offset:])
        assert frame is not None
        shared.add(frame[0])
        offset += frame[1]
    assert offset == len(data)
    assert len(shared) == 1


@pytest.mark.parametrize("name", ["mp2", "mp3"])
@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
def test_frames_of_layers_two_and_three_follow_each_other(name: str, rate_hz: int) -> None:
    data = encode(TONE, name, rate_hz, 1)
    offset = data.index(b"\xff") if name == "mp3" else 0
    shared = set()
    while offset < len(data):
        frame = mp3_frame(data[offset:])
        assert frame is not None
        shared.add(frame[0])
        offset += frame[1]
    assert len(shared) == 1


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 48_000])
def test_the_first_frame_of_mp3_declares_duration_and_length(rate_hz: int) -> None:
    data = encode(TONE, "mp3", rate_hz, 1)
    begin = data.index(b"\xff")
    first = mp3_frame(data[begin:])
    assert first is not None
    frames, byte_count = xing(data[begin : begin + first[1]])
    assert byte_count == len(data) - begin
    assert frames * mp3_frame_s(first[0]) == pytest.approx(3.0, abs=0.2)
    assert xing(data[begin + first[1] :][: first[1]]) == (0, 0)


@pytest.mark.parametrize(
    ("name", "rate_hz", "parse"),
    [("latm", 16_000, loas_frame), ("latm", 48_000, loas_frame), ("ac3", 48_000, ac3_frame),
     ("mpegts", 16_000, ts_packet)],
)  # fmt: skip
def test_frames_without_a_container_follow_each_other(
    name: str, rate_hz: int, parse: FrameParser
) -> None:
    data, offset, shared = encode(TONE, name, rate_hz, 2), 0, set()
    while offset < len(data):
        frame = parse(data[offset:])
        assert frame is not None
        shared.add(frame[0])
        offset += frame[1]
    assert offset == len(data)
    assert len(shared) == 1


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ("0b77000000400000", 128),  # 48 kHz, 32 kbit/s.
        ("0b77000041400000", 140),  # 44.1 kHz: the odd code has one word more.
        ("0b77000081400000", 192),  # 32 kHz.
        ("0b77000025400000", 2_560),  # 48 kHz, 640 kbit/s.
        ("0b7702ff3f800000", 1_536),  # E-AC-3 declares its length.
        ("0b770000c0400000", None),  # No such rate,
        ("0b77000026400000", None),  # bit rate,
        ("0b77000000b80000", None),  # or version.
    ],
)
def test_lengths_of_ac_3(header: str, length: int | None) -> None:
    frame = ac3_frame(bytes.fromhex(header))
    assert (frame and frame[1]) == length


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000, 11_025])
def test_flac_frames_are_known_by_their_checksum(rate_hz: int) -> None:
    data = encode(TONE, "flac", rate_hz, 1)
    found = [n for n in range(len(data) - 20) if flac_frame(data[n : n + 20])]
    samples = 4_608 if rate_hz > 32_000 else 1_152
    assert len(found) >= len(TONE) * rate_hz // 16_000 // samples
    wrong = bytearray(data[found[0] : found[0] + 20])
    wrong[4] ^= 1
    assert not flac_frame(bytes(wrong))


@pytest.mark.parametrize("header", [b"", b"\xff", b"\xff\xff\xff\xff\xff\xff\xff", bytes(7)])
def test_other_bytes_are_no_header(header: bytes) -> None:
    parsers = (mp3_frame, aac_frame, ac3_frame, loas_frame, ts_packet)
    assert not any(parse(header) for parse in parsers) and not flac_frame(header)


@pytest.mark.parametrize("name", ["mp3", "aac", "flac", "ac3", "latm", "mpegts"])
@pytest.mark.parametrize("cut", [3_001, 4_444, 7_777])
def test_a_stream_joined_late_is_found(name: str, cut: int) -> None:
    data = encode(TONE, name, 16_000, 1)[cut:]
    found = find_frames(data)
    assert found is not None
    container, offset = found
    assert container == ("loas" if name == "latm" else name)
    assert offset < (8_000 if name == "flac" else 1_500)


def test_noise_is_no_stream() -> None:
    assert find_frames(np.random.default_rng(1).bytes(30_000)) is None
