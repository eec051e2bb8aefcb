from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools import audio_source as a

SAMPLE = Path(__file__).parents[2] / "tools" / "samples" / "digits_en.wav"


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


def test_duration_of_a_recording_without_one_in_its_header(tmp_path: Path) -> None:
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


def test_what_is_no_container_is_raw_pcm(tmp_path: Path) -> None:
    path = tmp_path / "speech.pcm"
    path.write_bytes(np.random.default_rng(1).integers(-900, 900, 8_000, dtype="<i2").tobytes())
    assert a.file_duration_s(path, 8_000) == 1.0


async def test_speed_zero_sends_everything_at_once() -> None:
    pieces = [b"ab", b"cd"]
    assert [piece async for piece in a.paced(pieces, 3_600.0, 0.0)] == pieces


def test_a_piece_leaves_when_it_has_been_spoken() -> None:
    assert [a.spoken_s(number, 4, 2.0, 2.0) for number in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]
    assert a.spoken_s(4, 4, 2.0, 0.0) == 0.0


async def test_standard_input_may_be_a_regular_file() -> None:
    with SAMPLE.open("rb") as file:
        pieces = [piece async for piece in a.stdin_pieces(file.fileno())]
    assert b"".join(pieces) == SAMPLE.read_bytes()


async def test_standard_input_may_be_empty() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    assert [piece async for piece in a.stdin_pieces(reading)] == []
    os.close(reading)
