"""Audio files in every container that the gateway reads, made by PyAV: no ffmpeg needed."""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence
from typing import Final

import av
import numpy as np
import numpy.typing as npt

SOURCE_RATE_HZ: Final = 16_000

_FRAGMENTED: Final = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": "500000",
}
_FORMATS: Final[dict[str, tuple[str, str, str, dict[str, str]]]] = {
    # container: (libavformat muxer, codec, sample format, options of the muxer)
    "webm": ("webm", "libopus", "s16", {}),
    "ogg": ("ogg", "libopus", "s16", {}),
    "flac": ("flac", "flac", "s16", {}),
    "mp3": ("mp3", "libmp3lame", "s16p", {}),
    "m4a": ("mp4", "aac", "fltp", {}),  # Its index is at the end.
    "mp3 in mp4": ("mp4", "libmp3lame", "s16p", {}),
    "fragmented mp4": ("mp4", "aac", "fltp", _FRAGMENTED),
    "mov": ("mov", "pcm_s16le", "s16", {}),
    "aac": ("adts", "aac", "fltp", {}),
    "aiff": ("aiff", "pcm_s16be", "s16", {}),
    "caf": ("caf", "pcm_s16be", "s16", {}),
    "amr": ("amr", "libopencore_amrnb", "s16", {}),
    "wma": ("asf", "wmav2", "fltp", {}),
    "au": ("au", "pcm_mulaw", "s16", {}),
    "mkv": ("matroska", "aac", "fltp", {}),
    "avi": ("avi", "libmp3lame", "s16p", {}),
    "flv": ("flv", "aac", "fltp", {}),
    "wv": ("wv", "wavpack", "s16p", {}),
    "tta": ("tta", "tta", "s16", {}),
    "w64": ("w64", "pcm_s16le", "s16", {}),
    "voc": ("voc", "pcm_s16le", "s16", {}),
    "rm": ("rm", "ac3", "fltp", {}),
    "ac3": ("ac3", "ac3", "fltp", {}),
    "mpegts": ("mpegts", "mp2", "s16", {}),
    "wav ima": ("wav", "adpcm_ima_wav", "s16p", {}),
    "wav ms": ("wav", "adpcm_ms", "s16", {}),
    "wav mp3": ("wav", "libmp3lame", "s16p", {}),
    "wav f64": ("wav", "pcm_f64le", "dbl", {}),
    "wav a-law": ("wav", "pcm_alaw", "s16", {}),
    "mp2": ("mp2", "mp2", "s16", {}),
    "latm": ("latm", "aac", "fltp", {}),
    "ircam": ("ircam", "pcm_s16le", "s16", {}),
    "sox": ("sox", "pcm_s32le", "s32", {}),
    "rf64": ("wav", "pcm_s16le", "s16", {"rf64": "always"}),
}
_LAYOUTS: Final = {1: "mono", 2: "stereo"}
_ONLY_RATE_HZ: Final = {"libopus": 48_000, "ac3": 48_000, "libopencore_amrnb": 8_000}
_ONLY_BIT_RATE: Final = {"libopencore_amrnb": 12_200}
CONTAINERS: Final = ("wav", *_FORMATS)


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
    """``pcm`` (mono, 16 kHz) as a file: ``container`` is one of ``CONTAINERS``.

    All ``channels`` carry the same sound; AMR has one, at 8 kHz. Opus has its own rate (48 kHz)
    inside webm and ogg, whatever ``rate_hz`` says. ``live``: as a recorder writes it that cannot
    seek back.
    """
    if container == "wav":
        return _wav(resample(pcm, rate_hz), rate_hz, channels)
    channels = 1 if container == "amr" else channels
    return encode_tracks([np.stack([pcm] * channels)], container, rate_hz, live=live)


def encode_tracks(
    tracks: Sequence[npt.NDArray[np.int16]], container: str, rate_hz: int, *, live: bool = False
) -> bytes:
    """Each track is of shape (channels, samples), at 16 kHz. ``container`` is one of
    ``CONTAINERS``, other than wav; most hold one track only."""
    muxer, codec, sample_format, options = _FORMATS[container]
    rate_hz = _ONLY_RATE_HZ.get(codec, rate_hz)
    target = _Unseekable() if live else io.BytesIO()
    with av.open(target, "w", format=muxer, container_options=options) as output:
        streams = [output.add_stream(codec, rate=rate_hz) for _ in tracks]
        for stream, track in zip(streams, tracks, strict=True):
            stream.layout = _LAYOUTS[len(track)]
            stream.format = sample_format
            stream.bit_rate = _ONLY_BIT_RATE.get(codec, 64_000 * len(track))
        for stream, track in zip(streams, tracks, strict=True):
            resampler = av.AudioResampler(sample_format, _LAYOUTS[len(track)], rate_hz)
            for frame in [_frame(track), None]:
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
    """Of shape (channels, samples), or mono."""
    channels = pcm.reshape(-1, pcm.shape[-1])
    interleaved = np.ascontiguousarray(channels.T).reshape(1, -1)
    layout = _LAYOUTS[len(channels)]
    frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout=layout)
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
