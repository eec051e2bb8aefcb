"""Sources of audio: durations, slices, pace, standard input, URLs."""

from __future__ import annotations

import asyncio
import functools
import http.server
import os
import struct
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_client import audio as a

SAMPLE = Path(__file__).parents[3] / "tools" / "samples" / "digits_en.wav"


@given(
    data=st.binary(max_size=2000),
    duration_s=st.floats(0.01, 100),
    slice_ms=st.integers(10, 10_000),
)
def test_slices_are_the_data(data: bytes, duration_s: float, slice_ms: int) -> None:
    pieces = a.slices(data, duration_s, slice_ms)
    assert b"".join(pieces) == data
    assert all(pieces)
    assert all(len(piece) % a.BYTES_PER_SAMPLE == 0 for piece in pieces[:-1])


def test_slices_hold_as_much_audio_as_asked() -> None:
    assert [len(piece) for piece in a.slices(bytes(32_000), 1.0, 100)] == [3_200] * 10


def test_duration_of_a_wav_file() -> None:
    with av.open(str(SAMPLE)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert a.file_duration_s(SAMPLE, 16_000) == pytest.approx(samples / 16_000, abs=0.01)


def test_duration_of_a_file_whose_header_has_none(tmp_path: Path) -> None:
    # A browser's recorder writes WebM to a stream and cannot go back to fill the header in.
    path = tmp_path / "recorded.webm"
    with (
        path.open("wb") as file,
        av.open(file, "w", format="webm", options={"live": "1"}) as container,
    ):
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 96_000), dtype=np.int16), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert a.file_duration_s(path, 16_000) == pytest.approx(2.0, abs=0.1)


def test_a_file_without_a_known_container_is_raw_pcm(tmp_path: Path) -> None:
    path = tmp_path / "speech.pcm"
    path.write_bytes(np.random.default_rng(1).integers(-900, 900, 8_000, dtype="<i2").tobytes())
    assert a.file_duration_s(path, 8_000) == 1.0


def wav(fmt: bytes, data_bytes: int, audio: bytes) -> bytes:
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"LIST" + struct.pack("<I", 3) + b"abc\0"
    return b"RIFF\0\0\0\0WAVE" + chunks + b"data" + struct.pack("<I", data_bytes) + audio


@pytest.mark.parametrize("data_bytes", [32_000, 0, 0xFFFFFFFF], ids=["known", "zero", "endless"])
@pytest.mark.parametrize(
    "fmt",
    [
        struct.pack("<HHIIHH", 1, 1, 8_000, 16_000, 2, 16),
        struct.pack("<HHIIHH", 3, 1, 4_000, 16_000, 4, 32),
        struct.pack("<HHIIHH24x", 0xFFFE, 1, 8_000, 16_000, 2, 16),
    ],
    ids=["pcm", "float", "extensible"],
)
def test_wav_headers(
    fmt: bytes, data_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "speech.wav"
    path.write_bytes(wav(fmt, data_bytes, bytes(32_000)))
    assert a.file_duration_s(path, 16_000) == 2.0


@pytest.mark.parametrize(
    "beginning", [b"", b"RIFF", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEdata\1\0\0\0x"]
)
def test_a_damaged_wav_is_measured_as_raw_pcm(beginning: bytes, tmp_path: Path) -> None:
    path = tmp_path / "speech.raw"
    path.write_bytes(beginning.ljust(32_000, b"\0"))
    assert a.file_duration_s(path, 16_000) == 1.0


def test_without_pyav_the_duration_of_an_encoded_file_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "speech.mp3").write_bytes(b"ID3")
    (tmp_path / "speech.pcm").write_bytes(bytes(32_000))
    with pytest.raises(a.UnknownDurationError, match=r"speech\.mp3"):
        a.file_duration_s(tmp_path / "speech.mp3", 16_000)
    assert a.file_duration_s(tmp_path / "speech.pcm", 16_000) == 1.0


async def test_speed_zero_sends_everything_at_once() -> None:
    pieces = [b"ab", b"cd"]
    assert [piece async for piece in a.paced(pieces, 3_600.0, 0.0)] == pieces


def test_a_piece_is_due_when_it_has_been_spoken() -> None:
    assert [a.due_s(number, 4, 2.0, 2.0) for number in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert a.due_s(4, 4, 2.0, 0.0) == 0.0


async def test_standard_input_may_be_a_regular_file() -> None:
    with SAMPLE.open("rb") as file:
        pieces = [piece async for piece in a.stdin_pieces(file.fileno())]
    assert b"".join(pieces) == SAMPLE.read_bytes()


async def test_standard_input_may_be_empty() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    assert [piece async for piece in a.stdin_pieces(reading)] == []
    os.close(reading)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_a_url_is_read_as_it_arrives(web: str, tmp_path: Path) -> None:
    data = os.urandom(3 * a.READ_BYTES)
    (tmp_path / "speech.mp3").write_bytes(data)
    assert b"".join([piece async for piece in a.url_pieces(f"{web}/speech.mp3")]) == data
    with pytest.raises(OSError, match="404"):
        await anext(a.url_pieces(f"{web}/nothing.mp3"))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
    ids=["length", "chunked", "ssh"],
)
async def test_a_url_whose_body_ends_early_is_an_error_with_its_name(answer: bytes) -> None:
    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(answer_and_close, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/speech.mp3"
        with pytest.raises(OSError, match=url):
            async with asyncio.timeout(10):
                [piece async for piece in a.url_pieces(url)]


async def test_errors_of_reading_are_raised(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        await anext(a.stdin_pieces(descriptor))
    os.close(descriptor)
