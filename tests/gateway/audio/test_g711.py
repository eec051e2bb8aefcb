"""G.711 as FFmpeg decodes it."""

from __future__ import annotations

import av
import numpy as np
import pytest

from gateway.audio.g711 import SAMPLE_RATE_HZ, Law, to_pcm


@pytest.mark.parametrize(("law", "codec"), [("ulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
def test_every_code_is_the_sample_that_ffmpeg_decodes(law: Law, codec: str) -> None:
    codes = bytes(range(256))
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout = SAMPLE_RATE_HZ, "mono"
    (frame,) = decoder.decode(av.Packet(codes))
    assert to_pcm(codes, law) == frame.to_ndarray().astype("<i2").tobytes()
    assert np.ptp(np.frombuffer(to_pcm(codes, law), "<i2").astype(int)) > 60_000


def test_nothing_is_nothing() -> None:
    assert to_pcm(b"", "ulaw") == b""
