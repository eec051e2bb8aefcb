"""One session's audio: chunks in whatever form the client sends them, one PCM timeline out."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.containers import AudioError
from gateway.decoding import DecoderPool

__all__ = ["AudioError", "AudioInput", "Decoded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What a chunk gave: mono s16le PCM at 16 kHz."""

    tail: bytes
    """Last PCM of the previous container, flushed because this chunk starts a new one."""
    pcm: bytes
    """PCM of this chunk."""
    starts_container: bool
    """A previous container (or raw PCM) ended just before this chunk."""
    ends_container: bool
    """It is known that the container ended with this chunk."""


class AudioInput:
    """Feed the session's chunks in order, one at a time; ``finish`` or ``close`` it."""

    def __init__(
        self, raw_sample_rate_hz: int, decoders: DecoderPool, duration_ms_max: int
    ) -> None:
        raise NotImplementedError

    async def feed(self, data: bytes, *, whole: bool = False) -> Decoded:
        """Decode ``data``. ``whole``: it stands for itself, nothing is carried over it.

        Raises:
            AudioError: the chunk is unusable. The input stays usable.
        """
        raise NotImplementedError

    async def finish(self) -> bytes:
        """No more chunks; returns the PCM still held."""
        raise NotImplementedError

    async def close(self) -> None:
        """Free everything, at any time."""
        raise NotImplementedError
