"""Audio to be sent as bytes, paced: slices of a file in real time (or faster), or standard input
as it comes."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import av
import av.error

BYTES_PER_SAMPLE = 2
STDIN_READ_BYTES = 32_768
STDIN_WAITING_MAX = 8
"""Reads that nobody has taken yet; at the limit standard input is read no further."""


def file_duration_s(path: Path, pcm_rate_hz: int) -> float:
    """Seconds of audio in ``path``; what is no container is raw mono s16le PCM.

    Only the pace depends on it: the server decodes the bytes itself.
    """
    try:
        with av.open(str(path)) as container:
            if container.duration:
                return float(container.duration) / 1_000_000
            ends_s = [
                float((packet.pts + (packet.duration or 0)) * packet.time_base)
                for packet in container.demux(audio=0)
                if packet.pts is not None and packet.time_base is not None
            ]
        duration_s = max(ends_s, default=0.0)
    except (av.error.FFmpegError, IndexError):  # No container, or one without audio.
        duration_s = 0.0
    return duration_s or path.stat().st_size / (pcm_rate_hz * BYTES_PER_SAMPLE)


def slices(data: bytes, duration_s: float, slice_ms: int) -> list[bytes]:
    """``data`` in slices of about ``slice_ms`` of its audio each, of a whole number of samples."""
    pieces = max(1, round(duration_s * 1000 / slice_ms))
    size = max(1, -(-len(data) // pieces))
    size += size % BYTES_PER_SAMPLE
    return [data[start : start + size] for start in range(0, len(data), size)]


def spoken_s(number: int, pieces: int, duration_s: float, speed: float) -> float:
    """When the last sample of the piece ``number`` (from 1) has been spoken, from the beginning;
    0 with speed 0."""
    return duration_s * number / pieces / speed if speed > 0 else 0.0


async def paced(pieces: list[bytes], duration_s: float, speed: float) -> AsyncIterator[bytes]:
    """``pieces`` at ``speed`` times real time, each when its last sample has been spoken; with
    speed 0 at once."""
    began_s = time.monotonic()
    for number, piece in enumerate(pieces, 1):
        due_s = began_s + spoken_s(number, len(pieces), duration_s, speed)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        yield piece


async def stdin_pieces(descriptor: int = 0) -> AsyncIterator[bytes]:
    """What comes on standard input, as it comes: its writer sets the pace.

    A thread reads, because a regular file cannot be waited for, and a daemon one, because a read
    that never returns must not keep the program from ending.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[bytes] = asyncio.Queue(STDIN_WAITING_MAX)

    def read() -> None:
        piece = b"begin"
        while piece:
            piece = os.read(descriptor, STDIN_READ_BYTES)
            try:
                asyncio.run_coroutine_threadsafe(waiting.put(piece), loop).result()
            except RuntimeError:  # The loop is closed: nobody listens any more.
                return

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while piece := await waiting.get():
        yield piece
