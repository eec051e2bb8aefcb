"""Decoding of WebM, Ogg, FLAC and MP3 in child processes."""

from __future__ import annotations


class DecoderPool:
    """Decoder processes of one gateway, at most ``decoders_max`` at a time."""

    def __init__(self, decoders_max: int) -> None:
        self._decoders_max = decoders_max

    async def close(self) -> None:
        """End every process."""
