"""Audio files in every container that the gateway reads, made by PyAV: no ffmpeg needed."""

from __future__ import annotations

import io
import wave
from typing import Final

import av
import numpy as np
import numpy.typing as npt

SOURCE_RATE_HZ: Final = 16_000

_FORMATS: Final = {
    # container: (libavformat muxer, codec, sample format)
    "webm": ("webm", "libopus", "s16"),
    "ogg": ("ogg", "libopus", "s16"),
    "flac": ("flac", "flac", "s16"),
    "mp3": ("mp3", "libmp3lame", "s16p"),
}


class _Unseekable:
    """Where a live recorder writes: sizes and durations in the header stay unknown."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def encode(
    pcm: npt.NDArray[np.int16], container: str, rate_hz: int, channels: int, *, live: bool = False
) -> bytes:
    """``pcm`` (mono, 16 kHz) as a file: ``container`` is wav, webm, ogg, flac or mp3.

    All ``channels`` carry the same sound. Opus has its own rate (48 kHz) inside webm and ogg,
    whatever ``rate_hz`` says. ``live``: as a recorder writes it that cannot seek back.
    """
    if container == "wav":
        return _wav(resample(pcm, rate_hz), rate_hz, channels)
    muxer, codec, sample_format = _FORMATS[container]
    if codec == "libopus":
        rate_hz = 48_000
    target = _Unseekable() if live else io.BytesIO()
    layout = {1: "mono", 2: "stereo"}[channels]
    with av.open(target, "w", format=muxer) as output:
        stream = output.add_stream(codec, rate=rate_hz)
        stream.layout = layout
        stream.format = sample_format
        resampler = av.AudioResampler(sample_format, layout, rate_hz)
        for frame in [_frame(pcm), None]:
            for converted in resampler.resample(frame):
                output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    return bytes(target.data) if isinstance(target, _Unseekable) else target.getvalue()


def resample(pcm: npt.NDArray[np.int16], rate_hz: int) -> npt.NDArray[np.int16]:
    """Mono 16 kHz ``pcm`` at ``rate_hz``."""
    resampler = av.AudioResampler("s16", "mono", rate_hz)
    parts = [part.to_ndarray()[0] for f in [_frame(pcm), None] for part in resampler.resample(f)]
    return np.concatenate(parts)


def _frame(pcm: npt.NDArray[np.int16]) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = SOURCE_RATE_HZ
    return frame


def _wav(pcm: npt.NDArray[np.int16], rate_hz: int, channels: int) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate_hz)
        writer.writeframes(np.repeat(pcm, channels).astype("<i2").tobytes())
    return target.getvalue()
