"""Decoder processes: the PCM does not depend on chunks; hostile input affects its stream only."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator

import av
import numpy as np
import psutil
import pytest

from gateway.audio import decoder_pool, decoder_process
from gateway.audio.decoder_pool import DecoderPool, EncodedStream
from gateway.audio.formats import AudioError, Container
from tools.lab.digit_speech import speak
from tools.lab.encoded_audio import encode

SPEECH = speak("90210", "en_awb", random.Random(6))
FORMATS: dict[str, tuple[Container, bytes]] = {
    "webm": ("matroska", encode(SPEECH, "webm", 48_000, 1)),
    "live webm": ("matroska", encode(SPEECH, "webm", 48_000, 2, live=True)),
    "ogg": ("ogg", encode(SPEECH, "ogg", 48_000, 2)),
    "flac": ("flac", encode(SPEECH, "flac", 16_000, 1)),
    "flac 44.1 kHz": ("flac", encode(SPEECH, "flac", 44_100, 2, live=True)),
    "mp3": ("mp3", encode(SPEECH, "mp3", 16_000, 1)),
    "mp3 44.1 kHz": ("mp3", encode(SPEECH, "mp3", 44_100, 2, live=True)),
}
NO_LIMIT = 1 << 40
WEBM = FORMATS["webm"][1]


others: set[psutil.Process] = set()
"""Children of this process that a test found: the systems of other modules' tests. Servers are
known by what they are not: a child that was just started has no command line for an instant."""


def servers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if child not in others]


@pytest.fixture
async def own_pool() -> AsyncIterator[DecoderPool]:
    others.update(psutil.Process().children())
    pool = DecoderPool(4)
    yield pool
    await pool.close()
    assert servers() == []


async def decode(pool: DecoderPool, container: Container, data: bytes, size: int) -> list[bytes]:
    stream = await pool.open(container)
    try:
        pieces = [
            await stream.feed(data[place : place + size], NO_LIMIT)
            for place in range(0, len(data), size)
        ]
        return [*pieces, await stream.finish(NO_LIMIT)]
    finally:
        await stream.close()


async def child_of(pool: DecoderPool, stream: EncodedStream) -> psutil.Process:
    """Return the only decoding child, after its start."""
    await stream.feed(WEBM[:2_000], NO_LIMIT)
    (server,) = servers()
    (child,) = server.children()
    return child


@pytest.mark.parametrize("name", FORMATS)
async def test_slices_give_exactly_the_pcm_of_the_whole_file(pool: DecoderPool, name: str) -> None:
    container, data = FORMATS[name]
    whole = b"".join(await decode(pool, container, data, len(data)))
    for size in (97, 640, 5_003):
        assert b"".join(await decode(pool, container, data, size)) == whole


@pytest.mark.parametrize("name", FORMATS)
async def test_the_decoded_audio_equals_the_encoded(pool: DecoderPool, name: str) -> None:
    container, data = FORMATS[name]
    pcm = np.frombuffer(b"".join(await decode(pool, container, data, 8_000)), "<i2")
    assert abs(len(pcm) - len(SPEECH)) < 1_600
    # Encoders delay a little: compare the loudness of 50 ms pieces, not the samples.
    length = min(len(pcm), len(SPEECH)) // 800 * 800
    loudness = [
        np.log(np.sqrt((x[:length].reshape(-1, 800).astype(float) ** 2).mean(axis=1)) + 30)
        for x in (pcm, SPEECH)
    ]
    assert np.corrcoef(*loudness)[0, 1] > 0.9


@pytest.mark.parametrize("name", FORMATS)
async def test_pcm_is_returned_while_the_stream_continues(pool: DecoderPool, name: str) -> None:
    container, data = FORMATS[name]
    pieces = await decode(pool, container, data, len(data) // 8)
    # A FLAC decoder looks some frames ahead; nothing waits for the end of the file.
    assert sum(map(len, pieces[:5])) > 0
    assert len(pieces[-1]) < sum(map(len, pieces)) // 2


async def test_pieces_of_pcm_belong_to_the_same_chunks_every_time(pool: DecoderPool) -> None:
    first = await decode(pool, "matroska", WEBM, 700)
    assert await decode(pool, "matroska", WEBM, 700) == first


@pytest.mark.parametrize("name", FORMATS)
async def test_random_data_behind_a_magic_is_bad_audio(pool: DecoderPool, name: str) -> None:
    container, data = FORMATS[name]
    junk = data[:8] + random.Random(1).randbytes(20_000)
    with pytest.raises(AudioError) as raised:
        await decode(pool, container, junk, 4_000)
    assert raised.value.code == "bad_audio"


async def test_an_encrypted_file_is_named(pool: DecoderPool) -> None:
    key = "00112233445566778899aabbccddeeff"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", container_options=options) as output:
        track = output.add_stream("aac", rate=16_000, layout="mono")
        silence = np.zeros((1, 1_024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate = 16_000
        output.mux(track.encode(frame))
        output.mux(track.encode(None))
    with pytest.raises(AudioError, match="the file is encrypted"):
        await decode(pool, "mov", file.getvalue(), 4_000)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [4, 40])
async def test_a_file_cut_off_in_its_header_is_bad_audio(
    pool: DecoderPool, name: str, kept: int
) -> None:
    container, data = FORMATS[name]
    with pytest.raises(AudioError) as raised:
        await decode(pool, container, data[:kept], 4_000)
    assert raised.value.code == "bad_audio"


@pytest.mark.parametrize("name", FORMATS)
async def test_a_truncated_file_keeps_its_words(pool: DecoderPool, name: str) -> None:
    container, data = FORMATS[name]
    half = data[: len(data) // 2]
    try:
        pcm = b"".join(await decode(pool, container, half, 1_000))
    except AudioError as error:
        # The truncated last frame may be reported; the frames before it were returned.
        assert error.code == "bad_audio"
    else:
        assert len(pcm) > len(SPEECH) // 2


async def test_a_stream_that_turns_into_noise_is_refused_with_the_name_of_the_limit(
    pool: DecoderPool,
) -> None:
    rng = random.Random(3)
    noise = rng.randbytes(1 << 20)
    stream = await pool.open("matroska")
    assert await stream.feed(WEBM[: len(WEBM) // 2], NO_LIMIT)
    with pytest.raises(AudioError) as raised:
        for _ in range(decoder_process.SOUNDLESS_BYTES_MAX // len(noise) + 2):
            await stream.feed(noise, NO_LIMIT)
    assert raised.value.code == "bad_audio"
    assert "SOUNDLESS_BYTES_MAX" in str(raised.value)
    await stream.close()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["webm", "ogg", "flac", "mp3"])
async def test_damaged_files_never_harm_the_next_one(
    pool: DecoderPool, name: str, seed: int
) -> None:
    container, data = FORMATS[name]
    rng = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(20):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    try:
        await decode(pool, container, bytes(damaged), 3_000)
    except AudioError as error:
        assert error.code == "bad_audio"
    assert b"".join(await decode(pool, container, data, 3_000))


@pytest.mark.parametrize(
    "playlist",
    [
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"http://127.0.0.1:1/audio.mp3",
        b"/etc/passwd",
    ],
)
@pytest.mark.parametrize("container", ["matroska", "ogg", "flac", "mp3"])
async def test_playlists_and_urls_are_not_followed(
    pool: DecoderPool, container: Container, playlist: bytes
) -> None:
    with pytest.raises(AudioError):
        await decode(pool, container, playlist, 1_000)


async def test_a_decode_bomb_stops_at_the_callers_limit(pool: DecoderPool) -> None:
    bomb = encode(np.zeros(16_000 * 300, np.int16), "webm", 48_000, 1)
    assert len(bomb) < 1 << 18
    stream = await pool.open("matroska")
    with pytest.raises(AudioError) as raised:
        await stream.feed(bomb, 16_000 * 10)
    assert raised.value.code == "audio_too_long"
    assert 16_000 * 9 * 2 < len(raised.value.pcm) <= 16_000 * 10 * 2
    await stream.close()


async def test_one_chunk_may_not_decode_to_hours_whatever_is_allowed(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_pool, "FEED_AUDIO_S_MAX", 1)
    stream = await pool.open("matroska")
    with pytest.raises(AudioError) as raised:
        await stream.feed(WEBM, NO_LIMIT)
    assert raised.value.code == "audio_too_long"
    await stream.close()


async def test_a_long_file_whose_index_is_at_its_end_is_given_in_parts(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is decoded when all of it is there; the limit of a chunk does not apply."""
    monkeypatch.setattr(decoder_pool, "FEED_AUDIO_S_MAX", 1)
    seconds = 150
    stream = await pool.open("mov")
    assert (
        await stream.feed(encode(np.zeros(16_000 * seconds, np.int16), "m4a", 16_000, 1), 0) == b""
    )
    parts = []
    while not stream.ended:
        parts.append(len(await stream.finish(NO_LIMIT)) / 32_000)
    assert sum(parts) == pytest.approx(seconds, abs=0.1)
    assert parts[:2] == pytest.approx([decoder_pool.PART_S] * 2, abs=0.1)
    await stream.close()


async def test_a_chunk_with_many_parts_is_returned_as_one(pool: DecoderPool) -> None:
    seconds = 150
    stream = await pool.open("matroska")
    webm = encode(np.zeros(16_000 * seconds, np.int16), "webm", 48_000, 1)
    pcm = await stream.feed(webm, NO_LIMIT)
    assert len(pcm) / 32_000 == pytest.approx(seconds, abs=2)
    await stream.close()


async def test_a_crash_of_a_decoder_is_its_own_streams_error(own_pool: DecoderPool) -> None:
    victim = await own_pool.open("matroska")
    child = await child_of(own_pool, victim)
    other = await own_pool.open("ogg")
    child.send_signal(signal.SIGSEGV)
    with pytest.raises(AudioError) as raised:
        await victim.feed(WEBM[2_000:], NO_LIMIT)
    assert raised.value.code == "bad_audio"
    assert await other.feed(FORMATS["ogg"][1], NO_LIMIT)
    await victim.close()
    await other.close()


async def test_a_decoder_that_hangs_is_given_up(
    own_pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await own_pool.open("matroska")
    child = await child_of(own_pool, stream)
    monkeypatch.setattr(decoder_pool, "ANSWER_TIMEOUT_S", 0.2)
    child.suspend()
    with pytest.raises(AudioError) as raised:
        await stream.feed(WEBM[2_000:], NO_LIMIT)
    assert raised.value.code == "bad_audio"
    await stream.close()


async def test_a_decoder_is_confined(own_pool: DecoderPool) -> None:
    stream = await own_pool.open("matroska")
    child = await child_of(own_pool, stream)
    assert child.rlimit(psutil.RLIMIT_NOFILE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert 0 < child.rlimit(psutil.RLIMIT_AS)[1] <= 1 << 30
    assert 0 < child.rlimit(psutil.RLIMIT_CPU)[1] <= 3_600
    await stream.close()


async def test_more_streams_than_the_limit_are_refused_until_one_closes(
    own_pool: DecoderPool,
) -> None:
    streams = [await own_pool.open("ogg") for _ in range(4)]
    with pytest.raises(AudioError) as raised:
        await own_pool.open("ogg")
    assert raised.value.code == "overloaded"
    await streams[0].close()
    streams[0] = await own_pool.open("ogg")
    for stream in streams:
        await stream.close()


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process opens no file and no socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("started", [True, False])
async def test_without_descriptors_a_stream_is_refused_until_there_are_some(
    own_pool: DecoderPool, started: bool
) -> None:
    if started:
        await own_pool.start()
    for _ in range(5):  # A refused stream takes no place.
        with no_descriptors(), pytest.raises(AudioError) as raised:
            await own_pool.open("ogg")
        assert raised.value.code == "overloaded"
    assert b"".join(await decode(own_pool, "matroska", WEBM, len(WEBM)))


async def test_streams_opened_at_once_share_one_server(own_pool: DecoderPool) -> None:
    streams = await asyncio.gather(*[own_pool.open("matroska") for _ in range(4)])
    pcm = await asyncio.gather(*[stream.feed(WEBM, NO_LIMIT) for stream in streams])
    assert len(set(pcm)) == 1
    assert len(servers()) == 1
    for stream in streams:
        await stream.close()


async def test_a_cancelled_call_leaves_nothing_behind(own_pool: DecoderPool) -> None:
    stream = await own_pool.open("matroska")
    child = await child_of(own_pool, stream)
    child.suspend()
    feeding = asyncio.create_task(stream.feed(WEBM, NO_LIMIT))
    await asyncio.sleep(0)  # lets it begin
    feeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await feeding
    await stream.close()
    await stream.close()
    child.resume()
    assert b"".join(await decode(own_pool, "matroska", WEBM, 9_000))


async def test_the_server_is_started_again_when_it_died(own_pool: DecoderPool) -> None:
    await own_pool.start()
    (server,) = servers()
    server.kill()
    server.wait()
    assert b"".join(await decode(own_pool, "matroska", WEBM, 9_000))


async def test_closing_ends_streams_that_are_open() -> None:
    pool = DecoderPool(2)
    stream = await pool.open("matroska")
    child = await child_of(pool, stream)
    child.suspend()  # not even asked it could end by itself
    await pool.close()
    assert not child.is_running()
    await pool.close()


async def test_decoders_die_with_the_gateway() -> None:
    program = (
        "import asyncio, sys\n"
        "from gateway.audio.decoder_pool import DecoderPool\n"
        "async def main():\n"
        "    stream = await DecoderPool(1).open('ogg')\n"
        "    await stream.feed(b'OggS', 1)\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert gateway.stdout is not None
    assert await gateway.stdout.readline() == b"ready\n"
    decoders = psutil.Process(gateway.pid).children(recursive=True)
    assert len(decoders) == 2
    gateway.kill()
    await gateway.wait()
    _, alive = await asyncio.to_thread(psutil.wait_procs, decoders, 10)
    assert alive == []
