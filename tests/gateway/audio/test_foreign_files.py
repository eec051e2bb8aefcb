"""Files that are no audio have a name, and no recording has one."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from gateway.audio.foreign_files import foreign
from gateway.audio.formats import sniff
from tools.lab.encoded_audio import encode


def test_mu_law_is_no_text() -> None:
    """Quiet speech in it has none of the control characters."""
    speech = np.random.default_rng(3).normal(100, 300, 4_000).astype(np.int16)
    quiet = encode(speech, "au", 8_000, 1)[64:]
    assert not any(byte < 0x20 or byte == 0x7F for byte in quiet)
    assert foreign(quiet) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"nine two five\n", "text"),
        ('{"text": "你好"}'.encode(), "text"),
        ("你好".encode()[:-1], "text"),
        (b"<!DOCTYPE html>\r\n<html>", "text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"PK\3\4\x14\0\0\0", "ZIP"),
        (b"OggS\0\0\x10\0", "Ogg stream without its beginning"),
        (b"\x1f\x43\xb6\x75\x01\xff", "WebM stream without its beginning"),
        (("Müller fährt über die Straße.\n" * 20).encode("latin-1"), "text"),
        (("今天天气很好。\n" * 50).encode("gb18030"), "text"),
        ("nine two five\r\n".encode("utf-16"), "text"),
        ("nine two five\r\n".encode("utf-16") * 30, "text"),
        (b"\x93NUMPY\1\0v\0{'descr': '<i2'", "NumPy"),
        (b"BM\x36\x10\0\0\0\0\0\0", "BMP"),
        (b"\0\0\1\0\2\0\x20\x20\0\0\1\0\x20\0\xa8\x10\0\0\x26\0\0\0", "an icon"),
        (b"\2#!SILK_V3", "SILK"),
        (("nine two five\n" * 50).encode("utf-16-le"), "text"),
        (("今天天气很好。\n" * 50).encode("utf-16-be"), "text"),
        (("nine two five\n" * 50).encode("utf-32"), "text"),
        (b"YUV4MPEG2 W160 H120\nFRAME\n\x51\x51", "raw video"),
        (b"dns.\x2c\0\0\0\0\x47\1\0", "little-endian AU"),
        (struct.pack("<5I", 0, 1, 1, 0, 11) + b"samplerate\0" + bytes(8), "MATLAB"),
        (struct.pack(">5I", 1_000, 1, 1, 0, 9) + b"wavedata\0" + bytes(8), "MATLAB"),
        (b"\0\0\0\x68moof\0\0", "MP4 stream without its beginning"),
    ],
)
def test_other_kinds_have_a_name(data: bytes, said: str) -> None:
    assert said in (foreign(data) or "")


@pytest.mark.parametrize("rms", [0.5, 1, 2, 4, 8, 16, 32, 128, 512])
@pytest.mark.parametrize("offset", [0, 80, 120, 300, 1_100, 8_192, -2, -80, -400])
def test_no_beginning_of_quiet_noise_is_taken_for_something_else(rms: float, offset: int) -> None:
    """``offset``: of many a microphone's samples from zero."""
    count = 1_000 if offset else 20_000
    noise = np.random.default_rng(5).standard_normal((count, 256)) * rms + offset
    for samples in np.rint(noise).astype("<i2"):
        data = samples.tobytes()
        assert foreign(data) is None
        assert sniff(data) in (None, "undecided")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        bytes(50),
        np.arange(99, dtype="<i2").tobytes(),
        np.random.default_rng(1).bytes(100),
    ],
)
def test_bytes_without_evidence_have_none(data: bytes) -> None:
    assert foreign(data) is None
