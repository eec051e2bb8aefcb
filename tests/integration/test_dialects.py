"""Clients of other protocols against the whole pipeline: right texts, stored like any session's."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx2
import numpy as np
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from asr_worker.recognizer.inverse_normalization import written
from gateway.session.transcript import join_texts
from tests.integration.admitted import open_socket
from tests.integration.dialect_clients import (
    funasr,
    funasr_files,
    funasr_start,
    vosk,
    vosk_texts,
)
from tests.integration.speech import PARTIALS_TRIES, Spoken, spoken
from tools.lab.encoded_audio import encode
from tools.lab.harness.stack import Stack, wait_until

WAV_HEADER_BYTES = 44


def funasr_url(stack: Stack) -> str:
    return f"ws://127.0.0.1:{stack.ports['gateway']}"


def vosk_url(stack: Stack) -> str:
    return f"ws://127.0.0.1:{stack.ports['gateway']}/vosk"


def raw(audio: Spoken, rate_hz: int = 16_000) -> bytes:
    return encode(audio.pcm, "wav", rate_hz, 1)[WAV_HEADER_BYTES:]


def sessions_by(stack: Stack, dialect: str) -> list[dict[str, Any]]:
    """Stored sessions of a dialect, oldest first."""
    with psycopg.connect(stack.database_url) as connection:
        rows = connection.execute(
            "SELECT id, status, text FROM asr_sessions WHERE client LIKE %s ORDER BY created_at",
            [f"%({dialect})"],
        ).fetchall()
    return [{"id": row[0], "status": row[1], "text": row[2]} for row in rows]


async def until_stored(stack: Stack, dialect: str, texts: list[str]) -> None:
    """Wait for sessions with these texts: protocols do not wait for the database."""

    def stored() -> bool:
        return set(texts) <= {session["text"] for session in sessions_by(stack, dialect)}

    await asyncio.to_thread(wait_until, stored, f"the sessions are stored: {texts}")


@pytest.mark.parametrize("acknowledged", [True, False], ids=["current", "older"])
@pytest.mark.parametrize("mode", ["offline", "online", "2pass"])
async def test_funasr_in_every_mode_and_with_either_end(
    stack: Stack, mode: str, acknowledged: bool
) -> None:
    said = [spoken(2_000 + n) for n in range(8)]
    # The C++ clients, of an older kind, close the connection on the first is_final.
    older = {} if acknowledged else {"svs_itn": False}
    views = await asyncio.gather(
        *(
            funasr(
                funasr_url(stack),
                raw(audio),
                funasr_start(mode, wav_name=f"clip{n}", **older),
                acknowledged=acknowledged,
            )
            for n, audio in enumerate(said)
        )
    )
    assert [view.text for view in views] == [audio.text for audio in said]
    for n, view in enumerate(views):
        *before, last = view.replies
        assert last["is_final"] is True
        if mode == "online" and acknowledged:
            assert [reply for reply in before if reply["text"]][-1]["is_final"]
        else:
            assert not any(reply["is_final"] for reply in before)
        assert ("is_end" in last) == acknowledged
        assert {reply["wav_name"] for reply in view.replies} == {f"clip{n}"}
        if mode == "offline":
            assert len(view.replies) == 1 + acknowledged


async def test_funasr_shows_words_while_they_are_spoken(stack: Stack) -> None:
    audio = spoken(2_100, digits=(12, 12), voice="zh_mei")
    pace_s = 0.06 / 4
    for _ in range(PARTIALS_TRIES):
        online, both = await asyncio.gather(
            funasr(funasr_url(stack), raw(audio), funasr_start("online"), pace_s=pace_s),
            funasr(funasr_url(stack), raw(audio), funasr_start("2pass"), pace_s=pace_s),
        )
        assert online.text == both.text == audio.text
        count = len([reply for reply in online.replies if reply["text"]])
        modes = {reply["mode"] for reply in both.replies}
        if count > len(audio.text) // 5 and "2pass-online" in modes:
            break
    assert count > len(audio.text) // 5 and "2pass-online" in modes
    sentences = [reply for reply in both.replies if reply["mode"] == "2pass-offline"]
    assert len([reply for reply in sentences if reply["text"]]) >= 2


@pytest.mark.parametrize(
    ("container", "wav_format"), [("mp3", "mp3"), ("webm", "others"), ("wav", "PCM")]
)
async def test_funasr_files_of_the_html5_client(
    stack: Stack, container: str, wav_format: str
) -> None:
    """A WAV file arrives as PCM with its header."""
    audio = spoken(2_200)
    rate_hz = 48_000 if container == "webm" else 44_100
    start = {
        "chunk_size": "5,10,5",
        "wav_name": "h5",
        "is_speaking": True,
        "chunk_interval": 10,
        "itn": False,
        "mode": "office",
        "wav_format": wav_format,
        "hotwords": '{"阿里巴巴":20,"hello world":"40"}',
    }
    view = await funasr(
        funasr_url(stack), encode(audio.pcm, container, rate_hz, 1), start, acknowledged=False
    )
    assert view.text == audio.text
    assert [reply["is_final"] for reply in view.replies] == [True]


@pytest.mark.parametrize("waits", [True, False])
async def test_funasr_files_one_after_another_over_one_socket(stack: Stack, waits: bool) -> None:
    said = [spoken(2_300 + n) for n in range(4)]
    files = [(f"file{n}", raw(audio)) for n, audio in enumerate(said)]
    replies = await funasr_files(funasr_url(stack), files, waits=waits)
    assert [reply["text"] for reply in replies] == [audio.text for audio in said]
    assert [reply["wav_name"] for reply in replies] == [f"file{n}" for n in range(4)]
    assert all(reply["mode"] == "offline" and reply["is_final"] for reply in replies)


async def test_a_file_that_cannot_be_decoded_is_an_error_to_funasr(stack: Stack) -> None:
    start = funasr_start("offline", wav_format="others")
    view = await funasr(funasr_url(stack), b"no audio at all" * 1_000, start)
    text, end = view.replies
    assert text["text"] == ""
    assert (end["is_end"], end["is_final"]) == (True, False)
    assert end["error"].startswith("bad_audio: ")


async def test_a_microphone_that_only_hangs_up_is_stored(stack: Stack) -> None:
    """The microphone mode of the Python client never says that it ends. The client hangs up in the
    second of two utterances, after the text of the first."""
    first, second = spoken(2_400), spoken(2_401)
    pcm = np.concatenate([first.pcm, np.zeros(16_000, first.pcm.dtype), second.pcm])
    async with open_socket(funasr_url(stack)) as socket:
        await socket.send(json.dumps(funasr_start("2pass", audio_fs=None, wav_format=None)))
        for place in range(0, len(pcm), 960):
            await socket.send(pcm[place : place + 960].tobytes())
        await socket.recv()
    text = join_texts([first.text, second.text])

    def stored() -> bool:
        return any(
            session["text"] == text and session["status"] == "abandoned"
            for session in sessions_by(stack, "funasr")
        )

    await asyncio.to_thread(wait_until, stored, "the recording is stored")


@pytest.mark.parametrize("rate_hz", [None, 8_000, 16_000])
async def test_vosk_in_lockstep(stack: Stack, rate_hz: int | None) -> None:
    """Without a config, 8 kHz is understood."""
    said = [spoken(2_500 + n, digits=(8, 14)) for n in range(6)]
    before = {session["id"] for session in sessions_by(stack, "vosk")}
    answers = await asyncio.gather(
        *(vosk(vosk_url(stack), raw(audio, rate_hz or 8_000), rate_hz) for audio in said)
    )
    reported = [join_texts(vosk_texts(replies)) for replies in answers]
    assert reported == [audio.text for audio in said]
    assert all("partial" in replies[0] and "text" in replies[-1] for replies in answers)
    texts = sorted(audio.text for audio in said)

    def stored() -> bool:
        new = [session for session in sessions_by(stack, "vosk") if session["id"] not in before]
        return sorted(session["text"] or "" for session in new) == texts

    # The protocol does not wait for the database.
    await asyncio.to_thread(wait_until, stored, "all six are stored")


async def test_vosk_shows_partials_and_results_as_they_come(stack: Stack) -> None:
    audio = spoken(2_600, digits=(12, 12))
    for _ in range(PARTIALS_TRIES):
        replies = await vosk(vosk_url(stack), raw(audio), 16_000, words=1, pace_s=0.05)
        assert join_texts(vosk_texts(replies)) == audio.text
        if any(reply.get("partial") for reply in replies) and len(vosk_texts(replies)) >= 2:
            break
    assert any(reply.get("partial") for reply in replies)
    assert len(vosk_texts(replies)) >= 2


async def test_vosk_reset_ends_an_utterance_and_not_the_connection(stack: Stack) -> None:
    said = [spoken(2_700 + n, digits=(4, 4)) for n in range(3)]
    texts = []
    async with open_socket(vosk_url(stack)) as socket:
        await socket.send('{"config":{"sample_rate":16000.0}}')
        for audio, end in zip(said, ('{"reset" : 1}', '{"reset":1}', '{"eof":1}'), strict=True):
            await socket.send(raw(audio))
            assert "partial" in json.loads(await socket.recv())
            await socket.send(end)
            texts.append(json.loads(await socket.recv())["text"])
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert texts == [audio.text for audio in said]


@pytest.mark.parametrize("message", ['{"config":{"model":"big"}}', "no JSON", '{"oef":1}'])
async def test_vosk_has_no_errors_so_it_is_closed(stack: Stack, message: str) -> None:
    async with open_socket(vosk_url(stack)) as socket:
        await socket.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            await socket.send(bytes(3_200))  # Audio begins the session, and its model is looked up.
            await socket.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


async def test_numbers_in_digits_for_clients_that_ask_for_them(stack: Stack) -> None:
    audio = spoken(2_900, digits=(4, 4), voice="zh_mei")
    digits = written(audio.text)
    assert digits.isascii() and digits.isdecimal()
    view = await funasr(funasr_url(stack), raw(audio), funasr_start("2pass", itn=True))
    assert view.text == digits
    replies = await vosk(vosk_url(stack), raw(audio), 16_000, itn=True)
    assert join_texts(vosk_texts(replies)) == digits


async def test_all_dialects_at_once(stack: Stack) -> None:
    said = [spoken(2_800 + n) for n in range(24)]
    modes = ("offline", "online", "2pass")

    async def one(n: int, audio: Spoken) -> str:
        if n % 4 == 3:
            return join_texts(vosk_texts(await vosk(vosk_url(stack), raw(audio), 16_000)))
        start = funasr_start(modes[n % 4])
        return (await funasr(funasr_url(stack), raw(audio), start)).text

    texts = await asyncio.gather(*(one(n, audio) for n, audio in enumerate(said)))
    assert texts == [audio.text for audio in said]


MANUAL = {"audio": {"input": {"turn_detection": None}}}
RECORDING = raw(Spoken(np.zeros(16_000, np.int16), ""))
REALTIME_AUDIO = json.dumps(
    {"type": "input_audio_buffer.append", "audio": base64.b64encode(RECORDING).decode()}
)


@pytest.mark.parametrize(
    ("path", "messages"),
    [
        ("/ws/asr", ['{"action":"start","session_id":"parameters"}']),
        ("/", ['{"mode":"offline"}', RECORDING, '{"is_speaking":false}']),
        ("/", ["START", RECORDING, "STOP"]),
        ("/vosk", [RECORDING, '{"eof":1}']),
        ("/v1/realtime", [REALTIME_AUDIO]),
        ("/v1/listen", ['{"type":"CloseStream"}']),
    ],
)
async def test_parameters_of_the_address_without_effect_are_warned_of(
    stack: Stack, path: str, messages: list[str | bytes]
) -> None:
    warnings: list[dict[str, str]] = []
    async with open_socket(
        f"{funasr_url(stack)}{path}?model=demo&intent=x&sample_rate=16000"
    ) as socket:
        for message in messages:
            await socket.send(message)
        async with asyncio.timeout(30):
            while not warnings:
                warnings = json.loads(await socket.recv()).get("warnings", [])
    known = {"/v1/listen": ["intent"]}
    named = [w.get("parameter") or w["message"].partition(":")[0].strip("?") for w in warnings]
    assert named == known.get(path, ["intent", "sample_rate"])


def long_recording(rate_hz: int, spoken_last: Spoken) -> bytes:
    """More than ``SMALL_MESSAGE_BYTES``."""
    silence = np.zeros(50 * 16_000, np.int16)
    return raw(Spoken(np.concatenate([silence, spoken_last.pcm]), ""), rate_hz)


async def test_a_long_recording_as_the_first_message(stack: Stack) -> None:
    audio = spoken(9_400)
    pcm = long_recording(16_000, audio)
    async with open_socket(vosk_url(stack)) as socket:
        await socket.send('{"config":{"sample_rate":16000}}')
        await socket.send(pcm)
        await socket.recv()
        await socket.send('{"eof":1}')
        assert json.loads(await socket.recv())["text"] == audio.text
    async with open_socket(funasr_url(stack)) as socket:
        for message in ('{"mode":"offline"}', pcm, '{"is_speaking":false}'):
            await socket.send(message)
        assert json.loads(await socket.recv())["text"] == audio.text
    async with open_socket(f"{funasr_url(stack)}/v1/realtime") as socket:
        encoded = base64.b64encode(long_recording(24_000, audio)).decode()
        await socket.send(json.dumps({"type": "session.update", "session": MANUAL}))
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": encoded}))
        await socket.send('{"type":"input_audio_buffer.commit"}')
        async with asyncio.timeout(30):
            while "transcript" not in (event := json.loads(await socket.recv())):
                assert event["type"] != "error"
        assert event["transcript"] == audio.text


async def test_a_file_over_http_as_funasrs_client_sends_it(stack: Stack) -> None:
    audio = spoken(9_300)
    wav = encode(audio.pcm, "wav", 16_000, 1)
    async with httpx2.AsyncClient(base_url=stack.http_url(), timeout=60) as client:
        files = {"audio": ("speech.wav", wav, "application/octet-stream")}
        answer = (await client.post("/recognition?language=zh", files=files)).json()
        damaged = await client.post("/recognition", files={"audio": ("a.wav", wav[:30])})
    assert (answer["text"], answer["code"]) == (audio.text, 0)
    assert join_texts(sentence["text"] for sentence in answer["sentences"]) == audio.text
    (warning,) = answer["warnings"]
    assert warning["message"] == "?language: this field has no effect"
    assert (damaged.status_code, damaged.json()["code"]) == (400, 1)
