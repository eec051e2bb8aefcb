"""Every form of client audio becomes the same timeline, whatever its chunks."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import numpy as np
import pytest

from gateway.audio.audio_input import AudioInput
from gateway.audio.decoder_pool import DecoderPool
from gateway.audio.formats import AudioError, sniff
from gateway.audio.timeline import AudioDecoded
from gateway.audio.wav import DeclaredAudio
from tests.gateway.audio.decoding import (
    FILES,
    HOUR_MS,
    LOUD,
    SPEECH,
    WAV,
    feed_all,
    heard,
    likeness,
    sliced,
)
from tools.lab.encoded_audio import CONTAINERS, encode, resample


async def timeline(pool: DecoderPool, chunks: list[bytes], rate_hz: int | None = 16_000) -> bytes:
    audio = AudioInput(rate_hz, pool, HOUR_MS)
    decoded = [await audio.feed(chunk) for chunk in chunks]
    return b"".join(d.tail + d.pcm for d in decoded) + (await audio.finish()).tail


# ----------------------------------------------------------------------------------------- chunking


async def test_a_long_wav_stream_is_not_kept(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    second = np.resize(LOUD, 16_000).astype("<i2").tobytes()
    await audio.feed(encode(LOUD, "wav", 16_000, 1)[:44])
    for _ in range(10):
        await audio.feed(second)
    tracemalloc.start()
    for _ in range(20):
        await audio.feed(second)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 3 * len(second)


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
    assert abs(len(whole) // 2 - len(SPEECH)) < 2_400
    for sizes in ([1, 10, 33, 640], [640], [5_001]):
        assert await timeline(pool, sliced(data, sizes)) == whole


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (44_100, 2)])
async def test_every_container_is_heard_whole_and_in_slices(
    pool: DecoderPool, name: str, rate_hz: int, channels: int
) -> None:
    data = encode(SPEECH, name, rate_hz, channels)
    whole = await timeline(pool, [data])
    assert likeness(whole) > (0.8 if name == "wma" else 0.97)
    assert await timeline(pool, sliced(data, [1, 999, 4_000])) == whole
    assert await timeline(pool, [data], None) == whole, "as a file over HTTP"


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
    assert (await audio.finish()).tail == b""


@pytest.mark.parametrize("rate_hz", [None, 16_000])
async def test_a_wav_file_without_samples_is_refused(
    pool: DecoderPool, rate_hz: int | None
) -> None:
    data = FILES["wav 16 kHz stereo"]
    audio = AudioInput(rate_hz, pool, HOUR_MS)
    await audio.feed(data[: data.index(b"data") + 4] + bytes(4))
    with pytest.raises(AudioError, match="the WAV file has no samples"):
        await audio.finish()


@pytest.mark.parametrize("beginning", [b"RIFF", b"Ogg", b"\x1aE", b"I", b"\xff\xfb\x90"])
async def test_bytes_that_might_become_a_magic_are_not_lost(
    pool: DecoderPool, beginning: bytes
) -> None:
    rest = bytes(len(beginning) % 2) + LOUD.tobytes()
    audio = AudioInput(16_000, pool, HOUR_MS)
    assert (await audio.feed(beginning)).pcm == b""
    assert (await audio.feed(rest)).pcm == beginning + rest
    assert (await audio.finish()).tail == b""
    # Nor when nothing follows.
    audio = AudioInput(16_000, pool, HOUR_MS)
    await audio.feed(beginning[:2])
    assert len(beginning) < 2 or (await audio.finish()).tail == beginning[:2]


# ----------------------------------------------------------------------------- containers in a row


@pytest.mark.parametrize("name", FILES)
async def test_whole_files_in_each_chunk(pool: DecoderPool, name: str) -> None:
    data = FILES[name]
    one = await timeline(pool, [data])
    audio = AudioInput(16_000, pool, HOUR_MS)
    first, second = [await audio.feed(data), await audio.feed(data)]
    rest = (await audio.finish()).tail
    assert not first.starts_container
    assert second.starts_container
    assert first.tail == b""
    assert first.pcm + second.tail == one
    assert second.pcm + rest == one
    knows_its_end = name.startswith(("wav", "ogg"))
    assert first.ends_container == second.ends_container == knows_its_end


@pytest.mark.parametrize("name", ["m4a", "mp3", "flac", "webm"])
async def test_a_file_that_ends_with_its_chunk_is_decoded_to_its_end(
    pool: DecoderPool, name: str
) -> None:
    data = FILES[name]
    one = await timeline(pool, [data])
    audio = AudioInput(16_000, pool, HOUR_MS)
    half = len(data) // 2
    for _ in range(2):
        first = await audio.feed(data[:half], more=True)
        second = await audio.feed(data[half:], continues=True, ends=True)
        assert first.begins_container
        assert second.ends_container
        assert first.tail + first.pcm + second.pcm == one
    assert (await audio.finish()).tail == b""


@pytest.mark.parametrize("name", ["wav 8 kHz mono", "ogg"])
async def test_only_the_last_slice_of_a_file_ends_it(pool: DecoderPool, name: str) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    decoded = await feed_all(audio, FILES[name], 700)
    assert [d.ends_container for d in decoded] == [False] * (len(decoded) - 1) + [True]
    assert (await audio.finish()).tail == b""


async def test_a_session_may_change_from_one_form_to_another(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    raw = await audio.feed(LOUD.tobytes())
    wav = await audio.feed(WAV)
    webm = await audio.feed(FILES["webm"])
    flac = await audio.feed(FILES["flac"])
    assert [d.starts_container for d in (raw, wav, webm, flac)] == [False, True, True, True]
    assert wav.pcm == SPEECH.tobytes()
    assert webm.pcm + flac.tail == await timeline(pool, [FILES["webm"]])
    assert flac.pcm + (await audio.finish()).tail == SPEECH.tobytes()


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
    assert b"".join(d.pcm for d in decoded) + (await audio.finish()).tail == await timeline(
        pool, [mp3]
    )


# ------------------------------------------------------------------------------------- whole chunks


@pytest.mark.parametrize("name", FILES)
async def test_a_whole_chunk_is_flushed_at_once(pool: DecoderPool, name: str) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    for _ in range(2):
        decoded = await audio.feed(FILES[name], whole=True)
        assert decoded.pcm == await timeline(pool, [FILES[name]])
        assert decoded.tail == b""
        assert decoded.ends_container
    assert (await audio.finish()).tail == b""


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


# ---------------------------------------------------------------------------- what has no magic


@pytest.mark.parametrize("name", ["mp3", "aac", "flac"])
async def test_a_stream_joined_late_is_decoded_from_its_next_frame(
    pool: DecoderPool, name: str
) -> None:
    data = encode(SPEECH, name, 16_000, 1)
    late = data[len(data) // 4 :]
    whole = await timeline(pool, [late])
    assert len(SPEECH) * 0.6 < len(whole) // 2 < len(SPEECH) * 0.85
    assert await timeline(pool, sliced(late, [700])) == whole


HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nX-Padding: %s\r\n\r\n" % (b"x" * 1_500)


@pytest.mark.parametrize("name", ["wav 44.1 kHz mono", "webm", "ogg", "flac", "m4a", "wma"])
@pytest.mark.parametrize("before", [b"\r\n", b"\xef\xbb\xbf", HTTP], ids=["\\n", "mark", "http"])
async def test_few_bytes_before_a_file_are_no_audio(
    pool: DecoderPool, name: str, before: bytes
) -> None:
    data = before + FILES[name]
    whole = await timeline(pool, [FILES[name]])
    for chunks in ([data], sliced(data, [700])):
        assert await timeline(pool, chunks) == whole
    assert await timeline(pool, [data], None) == whole, "as a file over HTTP"


@pytest.mark.parametrize("name", ["webm", "ogg", "m4a", "amr"])
@pytest.mark.parametrize("size", [500, 4_000, 1_000_000])
async def test_other_streams_without_their_beginning_are_refused_once(
    pool: DecoderPool, name: str, size: int
) -> None:
    data = random.Random(1).randbytes(40_000)
    if name != "amr":
        data = encode(SPEECH, name, 16_000, 1)[3_000:]
    audio = AudioInput(16_000, pool, HOUR_MS)
    errors = []
    for piece in sliced(data, [size]):
        try:
            assert (await audio.feed(piece)).pcm == b""
        except AudioError as error:
            errors.append((error.code, error.pcm))
    try:
        assert (await audio.finish()).tail == b""
    except AudioError as error:
        errors.append((error.code, error.pcm))
    assert errors == [("bad_audio", b"")]


async def test_declared_pcm_is_not_refused(pool: DecoderPool) -> None:
    noise = random.Random(1).randbytes(40_000)
    audio = AudioInput(16_000, pool, HOUR_MS, declared_raw=True)
    assert (await audio.feed(noise)).pcm == noise
    assert await audio.finish() == AudioDecoded(tail=b"")


@pytest.mark.parametrize(
    ("samples", "form"),
    [
        ((SPEECH / 32_768).astype("<f4").tobytes(), "32-bit floats"),
        (SPEECH.astype(">i2").tobytes(), "big-endian"),
        ((SPEECH // 256 + 128).astype(np.uint8).tobytes(), "8-bit"),
        (SPEECH.tobytes(), ""),
        ((SPEECH // 30).tobytes(), ""),
    ],
)
async def test_a_notice_names_the_samples_that_declared_pcm_has(
    pool: DecoderPool, samples: bytes, form: str
) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS, declared_raw=True)
    decoded = await feed_all(audio, samples, 640)
    assert b"".join(part.pcm for part in decoded) == samples
    assert (await audio.finish()).notices == ()
    notices = [notice for part in decoded for notice in part.notices]
    assert [notice.code for notice in notices] == (["other_samples"] if form else [])
    assert all(form in notice.message for notice in notices)


@pytest.mark.parametrize(
    ("name", "declared", "message"),
    [
        ("wav 8 kHz mono", {"sample_rate_hz": 8_000}, ""),
        ("wav 8 kHz mono", {"sample_rate_hz": 16_000}, "the WAV header is used: sample rate 8000"),
        ("flac", {"sample_rate_hz": 8_000, "encoding": "mulaw"}, "a FLAC file, not mulaw"),
        ("wav 8 kHz mono", {"encoding": "mulaw", "channels": 2}, "channels 1, not 2; encoding"),
        ("flac", {"sample_rate_hz": 8_000}, ""),
    ],
)
async def test_a_notice_tells_that_a_header_is_used_and_not_the_declared_form(
    pool: DecoderPool, name: str, declared: dict[str, Any], message: str
) -> None:
    form, is_raw = DeclaredAudio(**declared), "encoding" in declared
    audio = AudioInput(16_000, pool, HOUR_MS, declared_raw=is_raw, declared=form)
    decoded = await feed_all(audio, FILES[name], 3_000)
    flushed = await audio.finish()
    pcm = b"".join(part.tail + part.pcm for part in decoded) + flushed.tail
    assert likeness(pcm) > 0.9
    notices = [*(notice for part in decoded for notice in part.notices), *flushed.notices]
    assert [notice.code for notice in notices] == (["header_used"] if message else [])
    assert all(message in notice.message for notice in notices)


async def decoded_raw(pool: DecoderPool, pieces: list[bytes], **declared: Any) -> list[int]:
    """The samples of raw audio of 16 kHz in the declared form."""
    form = DeclaredAudio(**declared)
    audio = AudioInput(16_000, pool, HOUR_MS, declared_raw=True, declared=form)
    pcm = [(await audio.feed(piece)).pcm for piece in pieces]
    pcm.append((await audio.finish()).tail)
    return [int(sample) for sample in np.frombuffer(b"".join(pcm), "<i2")]


async def test_raw_audio_is_decoded_as_declared(pool: DecoderPool) -> None:
    samples = np.array([-30_000, -1, 0, 1, 30_000])
    linear32 = (samples << 16).astype("<i4").tobytes()
    pieces = [linear32[:3], linear32[3:]]
    assert await decoded_raw(pool, pieces, encoding="linear32") == samples.tolist()
    assert await decoded_raw(pool, [b"\1\0\2", b"\0"], encoding="linear16") == [1, 2]
    mulaw = [b"\xff\x00\x80"]
    assert await decoded_raw(pool, mulaw, encoding="mulaw") == [0, -32_124, 32_124]
    assert await decoded_raw(pool, [b"\xd5\x2a"], encoding="alaw") == [8, -32_256]
    with pytest.raises(AudioError, match="middle of a sample"):
        await decoded_raw(pool, [b"\1\0\2"], encoding="linear16", channels=2)


async def test_channels_of_raw_audio_become_one_whatever_the_pieces(pool: DecoderPool) -> None:
    loud = np.arange(2_000) % 100 * 100
    both = np.stack([loud, np.zeros(2_000, int)], axis=1).astype("<i2").tobytes()
    whole = await decoded_raw(pool, [both], encoding="linear16", channels=2)
    assert whole == await decoded_raw(pool, sliced(both, [7]), encoding="linear16", channels=2)
    assert len(whole) == 2_000 and max(whole) >= max(loud) // 2
    opposite = np.stack([loud, -loud], axis=1).astype("<i2").tobytes()
    assert max(await decoded_raw(pool, [opposite], channels=2)) == max(loud)


async def test_a_tone_in_g711_is_no_stream_of_frames(pool: DecoderPool) -> None:
    """Its bytes repeat, as those of packets of MPEG-TS do."""
    tone = b"\x47\x30\xc7\xb0" * 500
    assert sniff(tone) == "mpegts"
    samples = await decoded_raw(pool, sliced(tone, [400]), encoding="mulaw")
    assert len(samples) == len(tone) and len(set(samples)) == 4


@pytest.mark.parametrize("declared", [False, True])
async def test_two_channels_alike_are_named(pool: DecoderPool, declared: bool) -> None:
    """They are not refused: naive converters of the sample rate repeat samples, too."""
    for channels, codes in ((1, []), (2, ["other_samples"])):
        audio = AudioInput(16_000, pool, HOUR_MS, declared_raw=declared)
        data = np.repeat(SPEECH, channels).astype("<i2").tobytes()
        decoded = await feed_all(audio, data, 640)
        last = await audio.finish()
        assert sum(len(part.pcm) for part in decoded) + len(last.tail) == len(data)
        notices = [*(notice for part in decoded for notice in part.notices), *last.notices]
        assert [notice.code for notice in notices] == codes


async def test_raw_pcm_too_short_to_judge_may_be_followed_by_a_file(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    assert (await audio.feed(LOUD[:3_000].tobytes())).pcm == b""
    decoded = await audio.feed(WAV)
    assert decoded.tail == LOUD[:3_000].tobytes()
    assert decoded.pcm == SPEECH.tobytes()
    assert decoded.starts_container


@pytest.mark.parametrize("size", [1, 700, 4_000])
async def test_files_behind_each_other_are_all_heard(pool: DecoderPool, size: int) -> None:
    other = FILES["wav 8 kHz mono"]
    both = await timeline(pool, [WAV]) + await timeline(pool, [other])
    assert await timeline(pool, sliced(WAV + other, [size])) == both


async def test_an_early_end_flag_does_not_end_an_ogg_stream(pool: DecoderPool) -> None:
    pages = [b"OggS" + page for page in FILES["ogg"].split(b"OggS")[1:]]
    early = bytearray(pages[len(pages) // 2])
    early[5] |= 4
    early[22:26] = bytes(4)
    early[22:26] = ogg_checksum(bytes(early)).to_bytes(4, "little")
    pages[len(pages) // 2] = bytes(early)
    whole = await timeline(pool, [b"".join(pages)])
    assert abs(len(whole) // 2 - len(SPEECH)) < 200
    by_page = await timeline(pool, pages)
    assert abs(len(by_page) - len(whole)) < 2 * 160, "but for what a decoder skips at its start"
    assert likeness(by_page) > 0.97


def ogg_checksum(page: bytes) -> int:
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            overflow = 0x04C11DB7 if checksum & 0x80000000 else 0
            checksum = (checksum << 1 & 0xFFFFFFFF) ^ overflow
    return checksum


# ------------------------------------------------------------------------------------------- errors


async def test_an_odd_byte_at_the_end_is_bad_audio(pool: DecoderPool) -> None:
    audio = AudioInput(8_000, pool, HOUR_MS)
    decoded = await audio.feed(LOUD.tobytes() + b"\1")
    with pytest.raises(AudioError) as raised:
        await audio.finish()
    assert raised.value.code == "bad_audio"
    assert len(decoded.pcm + raised.value.pcm) == len(LOUD) * 4


BAD_WAV = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(30)


async def test_what_follows_a_refused_file_is_ignored_until_the_next_begins(
    pool: DecoderPool,
) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    assert (await audio.feed(LOUD.tobytes())).pcm == LOUD.tobytes()
    with pytest.raises(AudioError) as raised:
        await audio.feed(BAD_WAV)
    assert raised.value.code == "bad_audio"
    # As PCM its other slices would be noise.
    for behind in (LOUD.tobytes(), b"O", b"\1\2\3"):
        assert (await audio.feed(behind)).pcm == b""
    assert (await audio.feed(WAV)).pcm == SPEECH.tobytes()
    assert (await audio.feed(WAV)).starts_container
    assert (await audio.finish()).tail == b""


async def test_a_file_refused_in_its_second_slice_is_ignored_too(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    await audio.feed(BAD_WAV[:20])
    with pytest.raises(AudioError):
        await audio.feed(BAD_WAV[20:])
    assert (await audio.feed(LOUD.tobytes())).pcm == b""
    assert (await audio.finish()).tail == b""


async def test_a_bad_whole_chunk_concerns_itself_only(pool: DecoderPool) -> None:
    audio = AudioInput(16_000, pool, HOUR_MS)
    with pytest.raises(AudioError):
        await audio.feed(BAD_WAV, whole=True)
    assert (await audio.feed(LOUD.tobytes(), whole=True)).pcm == LOUD.tobytes()


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
    with pytest.raises(AudioError, match="this is text"):
        await audio.feed(b"this is not a page" * 1_000)


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
    with pytest.raises(AudioError) as raised:
        await late.feed(webm[:2_000])
    assert raised.value.code == "overloaded"
    for place in (2_000, 4_000):
        assert (await late.feed(webm[place : place + 2_000])).pcm == b""
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


async def test_the_samples_of_a_wav_file_may_contradict_its_header(pool: DecoderPool) -> None:
    floats = (SPEECH / 32_768).astype("<f4").tobytes()
    _, (error,) = await heard(pool, sliced(WAV[:40] + b"\xff\xff\xff\xff" + floats, [640]))
    assert error.was_noise and "32-bit floats" in str(error)
