"""Chunks that hold one whole file, files behind others, and the last pages of Ogg."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gateway.audio import file_ends
from gateway.audio.audio_input import AudioInput
from gateway.audio.decoder_pool import DecoderPool
from gateway.audio.file_ends import WHOLE_FILE_BYTES_MAX, NextFile, OggPages, holds_whole_file
from gateway.audio.formats import Container, sniff
from tests.gateway.audio.decoding import (
    FILES,
    HOUR_MS,
    LOUD,
    SPEECH,
    WAV,
    codes_of,
    feed_all,
    heard,
    likeness,
    sliced,
)
from tools.lab.encoded_audio import encode, encode_tracks

TONE = (8_000 * np.sin(np.arange(48_000) * 0.1)).astype(np.int16)
NAMES = ["m4a", "mov", "mp3", "flac", "webm", "mkv"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_whole_file_is_known_by_its_header(name: str, rate_hz: int, channels: int) -> None:
    assert holds_whole_file(encode(TONE, name, rate_hz, channels))


@pytest.mark.parametrize("name", NAMES)
def test_no_slice_of_a_file_is_one(name: str) -> None:
    data = encode(TONE, name, 16_000, 1)
    for end in (*range(0, len(data), 97), *range(len(data) - 300, len(data))):
        assert not holds_whole_file(data[:end])
    assert not holds_whole_file(data[1:])
    # Two files in a row end there, too, but only one of the codecs shows it.
    assert holds_whole_file(data + data) == (name == "flac")


@pytest.mark.parametrize("name", ["webm", "mp3", "flac"])
def test_a_live_stream_declares_no_end(name: str) -> None:
    assert not holds_whole_file(encode(TONE, name, 48_000, 1, live=True))


def test_a_fragmented_file_may_continue() -> None:
    assert not holds_whole_file(encode(TONE, "fragmented mp4", 48_000, 1))


def test_an_mp3_may_end_with_an_old_tag() -> None:
    data = encode(TONE, "mp3", 16_000, 1)
    assert holds_whole_file(data + b"TAG" + bytes(125))
    assert not holds_whole_file(data + b"TAG" + bytes(124))


def test_other_bytes_and_long_files_are_not_looked_at() -> None:
    for data in (b"", b"fLaC", b"\x1a\x45\xdf\xa3", bytes(100), encode(TONE, "wav", 16_000, 1)):
        assert not holds_whole_file(data)
    long = np.random.default_rng(1).integers(-9_999, 9_999, WHOLE_FILE_BYTES_MAX).astype(np.int16)
    assert not holds_whole_file(encode(long, "flac", 16_000, 1))


@pytest.mark.parametrize(
    ("name", "container"),
    [("m4a", "mov"), ("fragmented mp4", "mov"), ("mov", "mov"), ("aiff", "aiff"), ("au", "au")],
)
@pytest.mark.parametrize("following", ["m4a", "aiff", "au", "flac", "wav"])
@pytest.mark.parametrize("size", [1, 7, 640, 1_000_000])
def test_another_file_is_found_behind_one(
    name: str, container: Container, following: str, size: int
) -> None:
    first, second = (encode(TONE, each, 16_000, 1) for each in (name, following))
    ends, own, rest = NextFile(container), b"", b""
    data = first + second
    place = 0
    while not rest and place < len(data):
        taken, rest = ends.feed(data[place : place + size])
        own += taken
        place += size
    assert own == first
    assert rest and second.startswith(rest)


@pytest.mark.parametrize("name", ["m4a", "aiff", "au"])
def test_without_another_file_nothing_is_lost(name: str) -> None:
    data = encode(TONE, name, 16_000, 1)
    container: Container = "mov" if name == "m4a" else name  # type: ignore[assignment]
    for whole in (data, data + b"abc", data + bytes(50), data[:-5]):
        ends = NextFile(container)
        found = [ends.feed(whole[n : n + 9]) for n in range(0, len(whole), 9)]
        taken = b"".join(taken for taken, _ in found) + ends.held
        # Padding is no audio, though the decoders of AIFF and AU would take it for audio.
        assert whole.startswith(taken) and len(taken) >= min(len(data), len(whole))
        assert not any(rest for _, rest in found)


@pytest.mark.parametrize("live", [False, True])
def test_bytes_behind_the_last_frame_of_flac_are_unknown(live: bool) -> None:
    data = encode(TONE, "flac", 16_000, 1, live=live)
    noise = np.random.default_rng(1).bytes(100_000)
    for behind, unknown_bytes in ((b"", 0), (bytes(9_000), 0), (b"TAG" + noise[:125], 0),
                                  (b"APETAGEX" + noise[:9_000], 0), (noise[:3_000], 3_000),
                                  (noise, 100_000)):  # fmt: skip
        for size in (100, 4_000, 1 << 20):
            ends = NextFile("flac")
            whole = data + behind
            for begin in range(0, len(whole), size):
                _, rest = ends.feed(whole[begin : begin + size])
                assert not rest
            ends.finish()
            # Zeros are not counted.
            assert 0.98 * unknown_bytes <= ends.unknown_bytes <= unknown_bytes
    cut = NextFile("flac")
    cut.feed(data[:-2_000])
    cut.finish()
    assert cut.unknown_bytes <= 2_000


def test_a_short_file_behind_bytes_that_resemble_a_frame_is_found_at_the_end() -> None:
    """The header of AAC declares more bytes than follow, so that only the end shows what it is."""
    first = encode(TONE, "flac", 16_000, 1) + bytes.fromhex("fff14c43ffffe0")
    second = encode(TONE[:4_000], "ac3", 16_000, 1)
    ends = NextFile("flac")
    own, rest = ends.feed(first + second)
    assert not rest
    last, rest = ends.finish()
    assert own + last == first
    assert rest == second


W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000") + bytes(8) + b"wave" + bytes(12)
LENGTHLESS = {
    "w64": W64.replace(b"wave", b"wav?"),
    "rm": b".RMF" + bytes(4) + b"PROP" + bytes(200),
    "ape": b"MAC \xa0\x0f" + bytes(200),
    "voc": b"Creative Voice File\x1a" + bytes(200),
    "flac": b"fLaC" + bytes(200),
    "wav": b"RIFF\0\0\0\0WAVX" + bytes(200),
}


@pytest.mark.parametrize("container", LENGTHLESS)
def test_a_file_with_damaged_lengths_is_taken_forward(container: Container) -> None:
    """Its own beginning is not that of another file, and no unit has no bytes."""
    data = LENGTHLESS[container]
    for size in (7, 33, len(data)):
        ends, fed, own, rest = NextFile(container), b"", b"", b""
        for begin in range(0, len(data), size):
            fed += data[begin : begin + size]
            passed, rest = ends.feed(data[begin : begin + size])
            own += passed
            assert own or not rest
            if rest:
                break
        assert own + ends.held + rest == fed


@pytest.mark.parametrize(
    ("container", "piece"),
    [
        ("flac", b"\xff\xfb\x90\x00"),
        ("flac", b"\xff"),
        ("ogg", b"OggS\0\x02" + bytes(8)),
    ],
)
def test_crafted_bytes_are_examined_a_limited_number_of_times(
    container: Container, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined = 0

    def counted(data: bytes) -> object:
        nonlocal examined
        examined += 1
        return sniff(data)

    monkeypatch.setattr(file_ends, "sniff", counted)
    begin = {"flac": b"fLaC", "ogg": b"OggS", "amr": b"#!AMR\n"}.get(container, b"")
    NextFile(container).feed(begin + bytes(32) + piece * (131_072 // len(piece)))
    assert examined <= 2 * file_ends.CANDIDATES_MAX + 2


@pytest.mark.parametrize("size", [1, 7, 640, 10**9])
def test_the_end_of_an_ogg_stream_is_known(size: int) -> None:
    ogg = encode(TONE, "ogg", 16_000, 1)
    pages = OggPages()
    reported = [pages.feed(ogg[place : place + size]) for place in range(0, len(ogg), size)]
    assert reported == [False] * (len(reported) - 1) + [True]


def test_an_ogg_stream_followed_by_another_in_the_same_chunk_has_not_ended() -> None:
    pages, ogg = OggPages(), encode(TONE, "ogg", 16_000, 1)
    assert not pages.feed(ogg + ogg[:40])
    assert pages.feed(ogg[40:])


def test_an_ogg_stream_out_of_sync_never_ends() -> None:
    ogg = bytearray(encode(TONE, "ogg", 16_000, 1))
    ogg[ogg.index(b"OggS", 4)] = 0
    assert not OggPages().feed(bytes(ogg))


# ------------------------------------------------------------------------ as AudioInput uses them


NAMED = {
    name: encode(SPEECH[:9_600], name, 16_000, 1)
    for name in ("wav", "webm", "mkv", "ogg", "flac", "mp3", "m4a", "fragmented mp4", "mov", "aac",
                 "amr", "aiff", "caf", "wma", "au", "wav ima", "avi", "flv", "wv", "tta", "w64",
                 "voc", "rm", "mp2", "ac3", "mpegts", "latm", "ircam", "sox", "wav a-law")
}  # fmt: skip
PAIRS = {
    *itertools.product(NAMED, ("wav", "m4a", "mp3", "aac", "ac3")),
    *itertools.product(("flac", "ogg", "wav a-law", "sox"), NAMED),
} - {(name, name) for name in ("ac3", "mpegts", "latm")}


@pytest.mark.parametrize(
    ("first", "second"),
    [("m4a", "aac"), ("fragmented mp4", "mp3"), ("mov", "ac3"), ("webm", "m4a"), ("ogg", "webm")],
)
async def test_padding_between_two_files_is_skipped(
    pool: DecoderPool, first: str, second: str
) -> None:
    """Its end is within a slice, and frames have no signature."""
    for zeros, size in ((3, 1 << 20), (15, 1_000), (5_000, 4_000)):
        data = NAMED[first] + bytes(zeros) + NAMED[second]
        pcm, errors = await heard(pool, sliced(data, [size]))
        assert not errors and len(pcm) > 38_400 * 0.95, (zeros, size)


@pytest.mark.parametrize("size", [333, 1 << 20])
async def test_any_container_behind_any_other_is_heard(pool: DecoderPool, size: int) -> None:
    for first, second in sorted(PAIRS):
        pcm, errors = await heard(pool, sliced(NAMED[first] + NAMED[second], [size]))
        assert not errors, (first, second)
        assert 38_400 * 0.95 < len(pcm) < 38_400 * 1.4, (first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("wav", "wav ima"), ("webm", "mkv"), ("mkv", "webm"), ("m4a", "mov"), ("wv", "wv")],
)
async def test_the_next_file_may_have_the_same_container(
    pool: DecoderPool, first: str, second: str
) -> None:
    pcm, errors = await heard(pool, [NAMED[first] + encode(SPEECH[:9_600], second, 44_100, 2)])
    assert not errors and len(pcm) >= 38_400 * 0.95


@pytest.mark.parametrize("second", ["wav", "flac", "m4a"])
async def test_a_file_behind_a_wav_stream_without_an_end_is_heard(
    pool: DecoderPool, second: str
) -> None:
    first = WAV[:40] + b"\xff\xff\xff\xff" + WAV[44:19_244]
    for size in (333, 1 << 20):
        pcm, errors = await heard(pool, sliced(first + NAMED[second], [size]))
        assert not errors and len(pcm) >= 38_400
        assert pcm[:19_200] == WAV[44:19_244]


@pytest.mark.parametrize(
    "resembling", [bytes.fromhex("000001ba") + bytes(40), bytes.fromhex("0000000001bc") + bytes(40)]
)
@pytest.mark.parametrize("name", ["wav", "wav f64", "aiff", "raw"])
async def test_a_slice_of_pcm_that_begins_like_a_rare_file_continues_it(
    pool: DecoderPool, name: str, resembling: bytes
) -> None:
    """Such as few channels with sound beside silent ones, whose samples are mostly zero."""
    data = LOUD.tobytes() if name == "raw" else encode(SPEECH, name, 16_000, 1)
    half = len(data) // 16 * 8
    data = data[:half] + resembling + data[half + len(resembling) :]
    pcm, errors = await heard(pool, [data[:half], data[half:]])
    assert not errors and len(pcm) == 2 * len(SPEECH)


async def test_a_slice_that_begins_with_a_frame_of_its_codec_continues_the_file(
    pool: DecoderPool,
) -> None:
    frame = bytes.fromhex("7ffe8001fc3c75b0") + bytes(40)
    data = encode(SPEECH, "mov", 16_000, 1)
    half = len(data) // 2
    data = data[:half] + frame + data[half + len(frame) :]
    assert sniff(data[half:]) == "dts"
    pcm, errors = await heard(pool, [data[:half], data[half:]])
    assert not errors and len(pcm) == 2 * len(SPEECH)


@pytest.mark.parametrize("name", ["aac", "flac", "mp3", "tta", "wav"])
async def test_any_file_may_follow_a_tag(pool: DecoderPool, name: str) -> None:
    """Segments of HLS begin so, and files of some taggers."""
    tag = b"ID3\x04\0\0\0\0\x02\x00PRIV" + bytes(252)
    for size in (333, 1 << 20):
        pcm, errors = await heard(pool, sliced(tag + NAMED[name], [size]))
        assert not errors and len(pcm) >= 19_200


@pytest.mark.parametrize("name", ["amr", "ogg", "webm", "m4a", "au", "flac"])
async def test_noise_behind_a_file_is_named(pool: DecoderPool, name: str) -> None:
    data = NAMED[name] + np.random.default_rng(1).bytes(40_000)
    for size in (333, 1 << 20):
        audio = AudioInput(16_000, pool, HOUR_MS)
        decoded = await feed_all(audio, data, size)
        last = await audio.finish()
        notices = [*(notice for part in decoded for notice in part.notices), *last.notices]
        assert [notice.code for notice in notices] == ["unknown_data"]
        assert sum(len(part.pcm) for part in decoded) + len(last.tail) < 24_000


@pytest.mark.parametrize("size", [4_000, 1 << 20])
async def test_zeros_behind_a_file_are_no_error(pool: DecoderPool, size: int) -> None:
    assert await codes_of(pool, FILES["fragmented mp4"] + bytes(5_000), size) == []


@pytest.mark.parametrize("size", [64, 4_000, 1 << 20])
async def test_noise_behind_a_wav_file_is_an_error_and_its_audio_is_kept(
    pool: DecoderPool, size: int
) -> None:
    noise = np.random.default_rng(1).bytes(40_000)
    pcm, errors = await heard(pool, sliced(WAV + noise, [size]))
    assert pcm == WAV[44:]
    assert [error.code for error in errors] == ["bad_audio"]


async def test_few_bytes_behind_the_end_of_a_container_are_no_pcm(pool: DecoderPool) -> None:
    """They are judged as the first bytes of a session are, once there are enough of them."""
    ogg = encode(SPEECH, "ogg", 48_000, 1)
    flac = encode(SPEECH, "flac", 16_000, 1)[3_000:]
    audio = AudioInput(16_000, pool, HOUR_MS)
    for chunk in [ogg, *sliced(flac[:20_000], [64])]:
        await audio.feed(chunk)
    await audio.finish()
    assert not audio.took_raw


@pytest.mark.parametrize(
    ("name", "behind"),
    [
        ("mp3", bytes(3_000)),
        ("aac", bytes(3_000)),
        ("mp3", b"TAG" + bytes(125)),
        ("mp3", b"APETAGEX" + b"a" * 9_000),
    ],
)
async def test_padding_and_tags_behind_the_last_frame_are_no_fault(
    pool: DecoderPool, name: str, behind: bytes
) -> None:
    data = encode(SPEECH, name, 16_000, 1) + behind
    for size in (640, 1 << 20):
        pcm, errors = await heard(pool, sliced(data, [size]))
        assert not errors and likeness(pcm) > 0.9


async def test_a_track_that_begins_within_a_file_is_named(pool: DecoderPool) -> None:
    """A transport stream whose tables change, say because another one follows it."""
    data = encode_tracks([SPEECH[None]], "mpegts", 16_000)
    data += encode_tracks([SPEECH[None]] * 2, "mpegts", 16_000)
    pcm, (error,) = await heard(pool, [data])
    assert str(error) == "a further track begins within the file"
    assert len(pcm) >= 2 * len(SPEECH)


async def test_a_terminator_at_the_end_of_voc_is_no_fault(pool: DecoderPool) -> None:
    pcm, errors = await heard(pool, [encode(SPEECH, "voc", 16_000, 1) + b"\0"])
    assert not errors and len(pcm) == 2 * len(SPEECH)


async def test_a_slice_of_mp4_that_begins_with_frames_of_mp3_continues_it(
    pool: DecoderPool,
) -> None:
    data = encode_tracks([SPEECH[None]], "mp3 in mp4", 16_000)
    frames = data.index(b"mdat") + 4
    assert sniff(data[frames : frames + 4_000]) == "mp3"
    pcm, errors = await heard(
        pool, [data[:frames], data[frames : frames + 4_000], data[frames + 4_000 :]]
    )
    assert not errors and likeness(pcm) > 0.9


async def test_the_header_inside_of_a_wavpack_file_begins_no_file(pool: DecoderPool) -> None:
    """``wavpack`` keeps that of the WAV file, in a block of its own (ID_RIFF_HEADER, 0x21)."""
    data = encode(SPEECH, "wv", 16_000, 1)
    header = WAV[:44]
    size = int.from_bytes(data[4:8], "little") + 2 + len(header)
    block = b"\x21" + bytes([len(header) // 2]) + header
    data = data[:4] + size.to_bytes(4, "little") + data[8:32] + block + data[32:]
    begins = data.index(b"RIFF")
    pcm, errors = await heard(
        pool, [data[:begins], data[begins : begins + 900], data[begins + 900 :]]
    )
    assert not errors and likeness(pcm) > 0.9
