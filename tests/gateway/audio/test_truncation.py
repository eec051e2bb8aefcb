from __future__ import annotations

import pytest

from gateway.audio.audio_input import AudioInput
from gateway.audio.decoder_pool import DecoderPool
from gateway.audio.truncation import (
    MISSING_BYTES_MIN,
    MISSING_S_MIN,
    PLACEHOLDER_BYTES_MIN,
    cut_within,
    missing,
)
from tests.gateway.audio.decoding import FILES, HOUR_MS, SPEECH, WAV, codes_of, feed_all, likeness
from tools.lab.encoded_audio import CONTAINERS, encode


@pytest.mark.parametrize(
    ("declared_s", "bytes_per_s", "heard_s", "is_cut"),
    [
        (10, 32_000, 4, True),
        (10, 0, 9.5, True),
        (10, 32_000, 10 - MISSING_S_MIN / 2, False),
        (10, 32_000, 12, False),
        (0, 32_000, 12, False),
        (0x7FFF_F000 / 32_000, 32_000, 4, False),
        (PLACEHOLDER_BYTES_MIN / 32_000, 32_000, 4, False),
    ],
)
def test_a_file_is_cut_if_less_came_than_declared(
    declared_s: float, bytes_per_s: float, heard_s: float, is_cut: bool
) -> None:
    assert bool(missing(declared_s, bytes_per_s, heard_s)) is is_cut


def test_the_message_has_both_durations() -> None:
    assert missing(10, 0, 4) == "the file is cut: its header declares 10.0 s of audio, 4.0 s came"


@pytest.mark.parametrize(
    ("missing_bytes", "is_cut"),
    [
        (0, False),
        (MISSING_BYTES_MIN - 1, False),
        (MISSING_BYTES_MIN, True),
        (PLACEHOLDER_BYTES_MIN, False),
    ],
)
def test_a_file_that_ends_within_a_unit_is_cut(missing_bytes: int, is_cut: bool) -> None:
    assert bool(cut_within(missing_bytes)) is is_cut


# -------------------------------------------------------------------------- as AudioInput uses it


def with_its_index_first(mp4: bytes) -> bytes:
    """Move ``moov`` to the front of ``mdat``, and correct the places of the samples."""
    boxes: dict[bytes, bytes] = {}
    place = 0
    while place < len(mp4):
        length = int.from_bytes(mp4[place : place + 4], "big")
        boxes[mp4[place + 4 : place + 8]] = mp4[place : place + length]
        place += length
    moov = bytearray(boxes[b"moov"])
    table = moov.index(b"stco") + 8
    for entry in range(int.from_bytes(moov[table : table + 4], "big")):
        at = table + 4 + 4 * entry
        begin = int.from_bytes(moov[at : at + 4], "big") + len(moov)
        moov[at : at + 4] = begin.to_bytes(4, "big")
    del boxes[b"moov"]
    return boxes.pop(b"ftyp") + moov + b"".join(boxes.values())


CUT = {
    **{name: encode(SPEECH, name, 16_000, 1) for name in CONTAINERS},
    "mp4": with_its_index_first(FILES["m4a"]),
    "mp3 44.1 kHz": b"ID3\x04\0\0\0\0\x02\x00PRIV" + bytes(252) + FILES["mp3 44.1 kHz"],
}


@pytest.mark.parametrize("name", CUT)
async def test_a_whole_file_is_not_called_cut(pool: DecoderPool, name: str) -> None:
    for size in (1_000, 1 << 20):
        assert await codes_of(pool, CUT[name], size) == []


@pytest.mark.parametrize(
    "name",
    [
        *("wav", "rf64", "wav ima", "wav f64", "mp4", "flac", "mp3", "mp3 44.1 kHz", "webm"),
        *("mkv", "aiff", "au", "avi", "flv", "rm", "tta", "caf", "w64", "ogg", "fragmented mp4"),
    ],
)
async def test_a_file_shorter_than_its_header_declares_is_named(
    pool: DecoderPool, name: str
) -> None:
    data = CUT[name]
    for size in (1_000, 1 << 20):
        assert await codes_of(pool, data[: len(data) * 2 // 3], size) == ["truncated"]


TEXT = b"These bytes follow the file, and are no part of it. " * 20
AMR_WB = encode(SPEECH[:4_000], "amr", 16_000, 1)


@pytest.mark.parametrize("behind", [TEXT, bytes(1_000), b"\0" + AMR_WB, bytes(2) + AMR_WB])
@pytest.mark.parametrize(
    "name", ["m4a", "mp4", "fragmented mp4", "flac", "ogg", "webm", "mp3", "aiff", "caf"]
)
async def test_what_follows_a_whole_file_does_not_make_it_a_cut_one(
    pool: DecoderPool, name: str, behind: bytes
) -> None:
    assert await codes_of(pool, CUT.get(name, FILES.get(name, b"")) + behind, 1 << 20) == []


async def test_a_live_stream_of_webm_may_end_anywhere(pool: DecoderPool) -> None:
    data = FILES["live webm"]
    assert await codes_of(pool, data[: len(data) * 2 // 3], 1_000) == []


@pytest.mark.parametrize(
    ("name", "unit", "before"), [("ogg", b"OggS", 0), ("fragmented mp4", b"moof", 4)]
)
async def test_a_stream_may_end_behind_each_of_its_units(
    pool: DecoderPool, name: str, unit: bytes, before: int
) -> None:
    data = FILES[name]
    assert await codes_of(pool, data[: data.rindex(unit) - before], 1_000) == []


@pytest.mark.parametrize("container", ["aiff", "caf", "w64", "wma"])
async def test_a_file_that_was_written_to_a_pipe(pool: DecoderPool, container: str) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    decoded = await feed_all(audio, encode(SPEECH, container, 16_000, 1, live=True), 2_000)
    ended = await audio.finish()
    assert likeness(b"".join(each.tail + each.pcm for each in decoded) + ended.tail) > 0.85
    assert not any(each.notices for each in (*decoded, ended))


@pytest.mark.parametrize("length", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
async def test_the_length_of_a_wav_stream_is_a_placeholder(pool: DecoderPool, length: int) -> None:
    data = WAV[:40] + length.to_bytes(4, "little") + WAV[44:]
    assert await codes_of(pool, data, 1_000) == []
