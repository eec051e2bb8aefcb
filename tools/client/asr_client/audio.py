"""Sources of audio: files, standard input and URLs, cut into chunks and paced."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Final

BYTES_PER_SAMPLE: Final = 2
RAW_SUFFIXES: Final = frozenset({".pcm", ".raw"})
READ_BYTES: Final = 32_768
READS_WAITING_MAX: Final = 8
"""Reads not yet taken by the sender; at the limit the source is read no further."""
URL_TIMEOUT_S: Final = 30.0
"""Limit on the silence of an HTTP server."""


class UnknownDurationError(Exception):
    """The duration of an encoded file cannot be determined without PyAV."""


def file_duration_s(path: Path, pcm_rate_hz: int) -> float:
    """Return the duration of a file in seconds. It determines the pace only.

    WAV files are measured by their header. Files named ``*.pcm`` and ``*.raw`` are 16-bit mono PCM
    at ``pcm_rate_hz``. PyAV measures all others; a file that it cannot open counts as PCM, too.

    Raises:
        OSError: If the file cannot be read.
        UnknownDurationError: If PyAV is needed and not installed.
    """
    with path.open("rb") as file:
        duration_s = _wav_duration_s(file, path.stat().st_size)
    if not duration_s and path.suffix.lower() not in RAW_SUFFIXES:
        duration_s = _encoded_duration_s(path)
    return duration_s or pcm_duration_s(path.stat().st_size, pcm_rate_hz)


def pcm_duration_s(size: int, rate_hz: int) -> float:
    """Return the duration of ``size`` bytes of 16-bit mono PCM, in seconds."""
    return size / (rate_hz * BYTES_PER_SAMPLE)


def _wav_duration_s(file: BinaryIO, size: int) -> float:
    """0.0 if the file is no WAV. The stated data size is not trusted: a WAV that was written to a
    stream has 0 or the largest number there."""
    riff, _, wave = struct.unpack("<4sI4s", file.read(12).ljust(12))
    bytes_per_s = 0
    while (riff, wave) == (b"RIFF", b"WAVE") and len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"fmt ":
            fmt = file.read(length).ljust(12, b"\0")
            bytes_per_s = int.from_bytes(fmt[8:12], "little")
        elif name == b"data":
            left = size - file.tell()
            return (min(length, left) or left) / bytes_per_s if bytes_per_s else 0.0
        else:
            file.seek(length + length % 2, os.SEEK_CUR)
    return 0.0


def _encoded_duration_s(path: Path) -> float:
    """0.0 if the file is no container of audio."""
    try:
        import av
        import av.error
    except ImportError:
        raise UnknownDurationError(f"the duration of {path} is unknown without PyAV") from None
    try:
        with av.open(str(path)) as container:
            if container.duration:
                return float(container.duration) / 1_000_000
            # A recorder that writes to a stream leaves no duration in the header.
            ends_s = [
                float((packet.pts + (packet.duration or 0)) * packet.time_base)
                for packet in container.demux(audio=0)
                if packet.pts is not None and packet.time_base is not None
            ]
    except (av.error.FFmpegError, IndexError):
        return 0.0
    return max(ends_s, default=0.0)


def slices(data: bytes, duration_s: float, slice_ms: int) -> list[bytes]:
    """Cut ``data`` into slices of about ``slice_ms`` of audio, each of a whole number of samples.

    ``data`` lasts ``duration_s``; an encoded file is cut as if its bitrate were constant.
    """
    count = max(1, round(duration_s * 1000 / slice_ms))
    size = max(1, -(-len(data) // count))
    size += size % BYTES_PER_SAMPLE
    return [data[start : start + size] for start in range(0, len(data), size)]


def due_s(number: int, count: int, duration_s: float, speed: float) -> float:
    """Return when slice ``number`` of ``count`` (from 1) has been spoken, in seconds from the
    start. With ``speed`` 0, all slices are due at once."""
    return duration_s * number / count / speed if speed > 0 else 0.0


async def paced(pieces: list[bytes], duration_s: float, speed: float) -> AsyncIterator[bytes]:
    """Yield ``pieces`` at ``speed`` times real time, each once its last sample has been spoken."""
    started_s = time.monotonic()
    for number, piece in enumerate(pieces, 1):
        due_at_s = started_s + due_s(number, len(pieces), duration_s, speed)
        await asyncio.sleep(max(0.0, due_at_s - time.monotonic()))
        yield piece


async def file_pieces(path: Path, size: int = READ_BYTES) -> AsyncIterator[bytes]:
    """Yield a file in pieces of ``size`` bytes, as fast as they are taken.

    Raises:
        OSError: If reading fails.
    """
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, size):
            yield piece


async def stdin_pieces(descriptor: int = 0) -> AsyncIterator[bytes]:
    """Yield standard input as it arrives.

    Raises:
        OSError: If reading fails.
    """
    async for piece in _read_in_thread(lambda: os.read(descriptor, READ_BYTES)):
        yield piece


async def url_pieces(url: str) -> AsyncIterator[bytes]:
    """Yield the body of an HTTP URL as it arrives.

    Raises:
        OSError: If the URL cannot be opened, reading fails, or the body ends early.
        ValueError: If ``url`` is not a valid HTTP URL.
    """
    try:
        response = await asyncio.to_thread(urllib.request.urlopen, url, timeout=URL_TIMEOUT_S)
    except (OSError, HTTPException) as error:  # Its message does not name the URL.
        raise OSError(f"{url}: {error}") from error

    def read() -> bytes:
        try:
            piece: bytes = response.read1(READ_BYTES)
        except (OSError, HTTPException) as error:
            raise OSError(f"{url}: {error}") from error
        if not piece and response.length:  # http.client takes this for the end.
            raise OSError(f"{url}: the last {response.length} bytes are missing")
        return piece

    with response:
        async for piece in _read_in_thread(read):
            yield piece


async def _read_in_thread(read: Callable[[], bytes]) -> AsyncIterator[bytes]:
    """Call ``read`` until it returns nothing.

    A thread is needed because an event loop cannot wait for a regular file. It is a daemon thread
    because a read that never returns must not keep the program from exiting.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[bytes | OSError] = asyncio.Queue(READS_WAITING_MAX)

    def read_all() -> None:
        piece: bytes | OSError = b"first"
        while isinstance(piece, bytes) and piece:
            try:
                piece = read()
            except OSError as error:
                piece = error
            try:
                asyncio.run_coroutine_threadsafe(waiting.put(piece), loop).result()
            except RuntimeError:  # The loop is closed: the program is exiting.
                return

    threading.Thread(target=read_all, name="audio-source", daemon=True).start()
    while piece := await waiting.get():
        if isinstance(piece, OSError):
            raise piece
        yield piece
