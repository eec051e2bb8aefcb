"""Every form of client audio becomes the same timeline, whatever its chunks."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import numpy as np
import pytest

from gateway.audio.audio_input import AudioInput
from gateway.audio.decoder_pool import DecoderPool
from gateway.audio.formats import AudioError
from gateway.audio.timeline import AudioDecoded
from tests.gateway.encoded_audio import encode, resample
from tools.lab.digit_speech import speak

SPEECH = speak("4711", "zh_mei", random.Random(2))
LOUD = np.where(SPEECH == 0, 1, SPEECH).astype("<i2")
HOUR_MS = 3_600_000
FILES = {
    "wav 8 kHz mono": encode(SPEECH, "wav", 8_000, 1),
    "wav 16 kHz mono": encode(SPEECH, "wav", 16_000, 1),
    "wav 16 kHz stereo": encode(SPEECH, "wav", 16_000, 2),
    "wav 44.1 kHz mono": encode(SPEECH, "wav", 44_100, 1),
    "wav 44.1 kHz stereo": encode(SPEECH, "wav", 44_100, 2),
    "webm": encode(SPEECH, "webm", 48_000, 1),
    "live webm": encode(SPEECH, "webm", 48_000, 1, live=True),
    "ogg": encode(SPEECH, "ogg", 48_000, 2),
    "flac": encode(SPEECH, "flac", 16_000, 1),
    "mp3": encode(SPEECH, "mp3", 16_000, 1),
    "mp3 44.1 kHz": encode(SPEECH, "mp3", 44_100, 2),
}
WAV = FILES["wav 16 kHz mono"]


@pytest.fixture
async def pool() -> AsyncIterator[DecoderPool]:
    pool = DecoderPool(4)
    yield pool
    await pool.close()


def sliced(data: bytes, sizes: list[int]) -> list[bytes]:
    """``data`` in pieces of these sizes, over and over."""
    pieces: list[bytes] = []
    place = 0
    while place < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[place : place + size])
        place += size
    return pieces


async def timeline(pool: DecoderPool, chunks: list[bytes], rate_hz: int = 16_000) -> bytes:
    audio = AudioInput(rate_hz, pool, HOUR_MS)
    decoded = [await audio.feed(chunk) for chunk in chunks]
    return b"".join(d.tail + d.pcm for d in decoded) + await audio.finish()


async def feed_all(audio: AudioInput, data: bytes, size: int) -> list[AudioDecoded]:
    return [await audio.feed(piece) for piece in sliced(data, [size])]


# ----------------------------------------------------------------------------------------- chunking


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 44_100, 48_000])
async def test_raw_pcm_does_not_depend_on_its_chunks(pool: DecoderPool, rate_hz: int) -> None:
    raw = resample(SPEECH, rate_hz).astype("<i2").tobytes()
    whole = await timeline(pool, [raw], rate_hz)
    assert abs(len(whole) // 2 - len(SPEECH)) <= 2
    for sizes in ([1, 2, 3, 641], [rate_hz // 50 * 2], [3_001]):
        assert await timeline(pool, sliced(raw, sizes), rate_hz) == whole


async def test_raw_pcm_at_16_khz_is_unchanged(pool: DecoderPool) -> None:
    assert await timeline(pool, sliced(LOUD.tobytes(), [333])) == LOUD.tobytes()


@pytest.mark.parametrize("name", FILES)
async def test_a_file_does_not_depend_on_its_chunks(pool: DecoderPool, name: str) -> None:
    data = FILES[name]
    whole = await timeline(pool, [data])
    assert abs(len(whole) // 2 - len(SPEECH)) < 1_600
    for sizes in ([1, 10, 33, 640], [640], [5_001]):
        assert await timeline(pool, sliced(data, sizes)) == whole


async def test_a_wav_file_decodes_to_its_raw_pcm(pool: DecoderPool) -> None:
    expected = await timeline(pool, [resample(SPEECH, 8_000).tobytes()], 8_000)
    assert await timeline(pool, [FILES["wav 8 kHz mono"]]) == expected
    assert await timeline(pool, [FILES["wav 16 kHz stereo"]]) == SPEECH.tobytes()


async def test_empty_chunks_are_nothing(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    nothing = AudioDecoded(
        tail=b"", pcm=b"", starts_container=False, ends_container=False, clean_start=True
    )
    assert await audio.feed(b"") == nothing
    assert (await audio.feed(LOUD.tobytes())).pcm == LOUD.tobytes()
    assert (await audio.feed(b"")).pcm == b""
    assert await audio.finish() == b""


@pytest.mark.parametrize("beginning", [b"RIFF", b"Ogg", b"\x1aE", b"I", b"\xff\xfb\x90"])
async def test_bytes_that_might_become_a_magic_are_not_lost(
    pool: DecoderPool, beginning: bytes
) -> None:
    rest = bytes(len(beginning) % 2) + LOUD.tobytes()
    audio = AudioInput(16_000, pool, HOUR_MS)
    assert (await audio.feed(beginning)).pcm == b""
    assert (await audio.feed(rest)).pcm == beginning + rest
    assert await audio.finish() == b""
    # Nor when nothing follows.
    audio = AudioInput(16_000, pool, HOUR_MS)
    await audio.feed(beginning[:2])
    assert len(beginning) < 2 or await audio.finish() == beginning[:2]


# ----------------------------------------------------------------------------- containers in a row


@pytest.mark.parametrize("name", FILES)
async def test_whole_files_in_each_chunk(pool: DecoderPool, name: str) -> None:
    data = FILES[name]
    one = await timeline(pool, [data])
    audio = AudioInput(16_000, pool, HOUR_MS)
    first, second = [await audio.feed(data), await audio.feed(data)]
    rest = await audio.finish()
    assert not first.starts_container
    assert second.starts_container
    assert first.tail == b""
    assert first.pcm + second.tail == one
    assert second.pcm + rest == one
    knows_its_end = name.startswith(("wav", "ogg"))
    assert first.ends_container == second.ends_container == knows_its_end


@pytest.mark.parametrize("name", ["wav 8 kHz mono", "ogg"])
async def test_only_the_last_slice_of_a_file_ends_it(pool: DecoderPool, name: str) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    decoded = await feed_all(audio, FILES[name], 700)
    assert [d.ends_container for d in decoded] == [False] * (len(decoded) - 1) + [True]
    assert await audio.finish() == b""


async def test_a_session_may_change_from_one_form_to_another(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    raw = await audio.feed(LOUD.tobytes())
    wav = await audio.feed(WAV)
    webm = await audio.feed(FILES["webm"])
    flac = await audio.feed(FILES["flac"])
    assert [d.starts_container for d in (raw, wav, webm, flac)] == [False, True, True, True]
    assert wav.pcm == SPEECH.tobytes()
    assert webm.pcm + flac.tail == await timeline(pool, [FILES["webm"]])
    assert flac.pcm + await audio.finish() == SPEECH.tobytes()


async def test_raw_pcm_that_is_cut_by_a_container_loses_half_a_sample_only(
    pool: DecoderPool,
) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    await audio.feed(LOUD.tobytes() + b"\1")
    decoded = await audio.feed(WAV)
    assert decoded.tail_failure is not None
    assert decoded.tail_failure.code == "bad_audio"
    assert decoded.pcm == SPEECH.tobytes()


async def test_slices_of_ogg_that_begin_with_a_page_continue_the_stream(pool: DecoderPool) -> None:
    ogg = FILES["ogg"]
    pages = [b"OggS" + page for page in ogg.split(b"OggS")[1:]]
    assert len(pages) > 3
    audio = AudioInput(16_000, pool, HOUR_MS)
    decoded = [await audio.feed(page) for page in pages]
    assert not any(d.starts_container for d in decoded)
    assert b"".join(d.pcm for d in decoded) == await timeline(pool, [ogg])


async def test_slices_of_mp3_that_begin_with_a_frame_continue_the_stream(
    pool: DecoderPool,
) -> None:
    mp3 = FILES["mp3"]
    frame = mp3.index(b"\xff\xf3")
    cut = frame
    for _ in range(12):
        cut = mp3.index(mp3[frame : frame + 2], cut + 4)
    audio = AudioInput(16_000, pool, HOUR_MS)
    decoded = [await audio.feed(mp3[:cut]), await audio.feed(mp3[cut:])]
    assert not decoded[1].starts_container
    assert b"".join(d.pcm for d in decoded) + await audio.finish() == await timeline(pool, [mp3])


# ------------------------------------------------------------------------------------- whole chunks


@pytest.mark.parametrize("name", FILES)
async def test_a_whole_chunk_is_flushed_at_once(pool: DecoderPool, name: str) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    for _ in range(2):
        decoded = await audio.feed(FILES[name], whole=True)
        assert decoded.pcm == await timeline(pool, [FILES[name]])
        assert decoded.tail == b""
        assert decoded.ends_container
    assert await audio.finish() == b""


async def test_whole_chunks_of_raw_pcm_carry_half_a_sample_over(pool: DecoderPool) -> None:
    data = LOUD.tobytes()
    audio = AudioInput(16_000, pool, HOUR_MS)
    first = await audio.feed(data[:3_201], whole=True)
    second = await audio.feed(data[3_201:], whole=True)
    assert len(first.pcm) == 3_200
    assert first.pcm + second.pcm == data
    assert first.ends_container


async def test_whole_chunks_at_another_rate_are_as_long_as_they_should_be(
    pool: DecoderPool,
) -> None:
    audio = AudioInput(8_000, pool, HOUR_MS)
    for _ in range(3):
        assert len((await audio.feed(bytes(1_600), whole=True)).pcm) == 3_200


# ------------------------------------------------------------------------------------------- errors


async def test_an_odd_byte_at_the_end_is_bad_audio(pool: DecoderPool) -> None:
    audio = AudioInput(8_000, pool, HOUR_MS)
    decoded = await audio.feed(LOUD.tobytes() + b"\1")
    with pytest.raises(AudioError) as raised:
        await audio.finish()
    assert raised.value.code == "bad_audio"
    assert len(decoded.pcm + raised.value.pcm) == len(LOUD) * 4


async def test_a_bad_chunk_is_forgotten_and_the_session_continues(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    assert (await audio.feed(LOUD.tobytes())).pcm == LOUD.tobytes()
    with pytest.raises(AudioError) as raised:
        await audio.feed(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(30))
    assert raised.value.code == "bad_audio"
    assert (await audio.feed(LOUD.tobytes())).pcm == LOUD.tobytes()
    assert await audio.finish() == b""


async def test_a_broken_stream_is_refused_until_a_new_container(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    await audio.feed(b"RIFF\x24\0\0\0WAVEfmt ")
    with pytest.raises(AudioError):
        await audio.feed(b"\x10\0\0\0" + bytes(30))
    # As PCM its remaining slices would be noise.
    for slice_behind in (LOUD.tobytes(), b"O", b"\1\2\3"):
        with pytest.raises(AudioError, match="continues"):
            await audio.feed(slice_behind)
    assert (await audio.feed(WAV)).pcm == SPEECH.tobytes()
    assert (await audio.feed(WAV)).starts_container
    assert await audio.finish() == b""


async def test_a_bad_file_does_not_take_the_next_one_with_it(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    await audio.feed(FILES["webm"][:60])
    decoded = await audio.feed(WAV)
    assert decoded.tail_failure is not None
    assert decoded.tail_failure.code == "bad_audio"
    assert decoded.pcm == SPEECH.tobytes()


async def test_audio_before_a_fault_is_kept(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    webm = await audio.feed(FILES["webm"])
    with pytest.raises(AudioError) as raised:
        await audio.feed(b"RIFF\x24\0\0\0WAVEdata" + bytes(30))
    assert webm.pcm + raised.value.pcm == await timeline(pool, [FILES["webm"]])


async def test_data_behind_the_end_of_a_stream_is_refused(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    assert (await audio.feed(FILES["ogg"])).ends_container
    with pytest.raises(AudioError):
        await audio.feed(b"this is not a page")


@pytest.mark.parametrize("name", ["raw", "wav 8 kHz mono", "webm", "flac"])
async def test_too_much_audio_is_audio_too_long(pool: DecoderPool, name: str) -> None:
    data = SPEECH.tobytes() if name == "raw" else FILES[name]
    audio = AudioInput(16_000, pool, 1_000)
    pcm = b""
    with pytest.raises(AudioError) as raised:
        for piece in sliced(data, [2_000]):
            pcm += (await audio.feed(piece)).pcm
    assert raised.value.code == "audio_too_long"
    assert 16_000 * 2 * 0.8 < len(pcm + raised.value.pcm) <= 16_000 * 2
    with pytest.raises(AudioError) as raised:
        await audio.feed(WAV)
    assert raised.value.code == "audio_too_long"
    await audio.close()


async def test_without_a_free_decoder_encoded_sessions_are_overloaded_and_raw_ones_continue(
    pool: DecoderPool,
) -> None:
    inputs = [AudioInput(16_000, pool, HOUR_MS) for _ in range(5)]
    for audio in inputs[:4]:
        await audio.feed(FILES["webm"][:2_000])
    with pytest.raises(AudioError) as raised:
        await inputs[4].feed(FILES["webm"])
    assert raised.value.code == "overloaded"
    assert (await inputs[4].feed(WAV)).pcm == SPEECH.tobytes()
    await inputs[0].close()
    assert (await inputs[4].feed(FILES["webm"])).pcm
    for audio in inputs:
        await audio.close()


async def test_the_rest_of_a_file_refused_as_overloaded_is_not_decoded_as_pcm(
    pool: DecoderPool,
) -> None:
    inputs = [AudioInput(16_000, pool, HOUR_MS) for _ in range(5)]
    for audio in inputs[:4]:
        await audio.feed(FILES["webm"][:2_000])
    late, webm = inputs[4], FILES["webm"]
    codes = []
    for place in range(0, 6_000, 2_000):
        with pytest.raises(AudioError) as raised:
            await late.feed(webm[place : place + 2_000])
        codes.append(raised.value.code)
        assert raised.value.pcm == b""
    assert codes == ["overloaded", "bad_audio", "bad_audio"]
    await inputs[0].close()
    assert (await late.feed(webm)).pcm
    for audio in inputs:
        await audio.close()


async def test_closing_frees_the_decoder_and_can_be_repeated(pool: DecoderPool) -> None:
    for _ in range(6):
        audio = AudioInput(16_000, pool, HOUR_MS)
        await audio.feed(FILES["ogg"][:4_000])
        await audio.close()
        await audio.close()
