"""Deepgram's streaming protocol against the whole pipeline. ``python -m tests.public_clients`` runs
its SDKs, LiveKit and pipecat."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from gateway.session.transcript import join_texts
from tests.integration.admitted import open_socket
from tests.integration.speech import PARTIALS_TRIES, slices, spoken
from tests.integration.test_dialects import raw, until_stored
from tools.lab.encoded_audio import encode
from tools.lab.harness.http import ask
from tools.lab.harness.stack import Stack

RATE = "encoding=linear16&sample_rate=16000"
Message = dict[str, Any]


def url(stack: Stack, query: str) -> str:
    return f"ws://127.0.0.1:{stack.ports['gateway']}/v1/listen?{query}"


async def listen(
    stack: Stack, query: str, audio: bytes, *, pace_s: float = 0.0, step: int = 3_200
) -> list[Message]:
    """Send one recording as Deepgram's clients do, and return all messages up to the close."""
    async with open_socket(url(stack, query)) as socket:

        async def receive() -> list[Message]:
            return [json.loads(message) async for message in socket]

        receiving = asyncio.create_task(receive())
        for piece in slices(audio, step):
            await socket.send(piece)
            await asyncio.sleep(pace_s)
        await socket.send('{"type": "CloseStream"}')
        messages = await asyncio.wait_for(receiving, 60)
        assert socket.close_code == 1000
        return messages


def final_text(messages: list[Message]) -> str:
    return join_texts(
        message["channel"]["alternatives"][0]["transcript"]
        for message in messages
        if message["type"] == "Results" and message["is_final"]
    )


async def test_many_streams_get_their_texts_and_are_stored(stack: Stack) -> None:
    said = [spoken(3_000 + n) for n in range(6)]
    answers = await asyncio.gather(*(listen(stack, RATE, raw(audio)) for audio in said))
    assert [final_text(messages) for messages in answers] == [audio.text for audio in said]
    for messages, audio in zip(answers, said, strict=True):
        assert messages[-1]["type"] == "Metadata"
        assert messages[-1]["duration"] == pytest.approx(len(audio.pcm) / 16_000, abs=0.01)
    await until_stored(stack, "deepgram", [audio.text for audio in said])


async def test_interim_results_and_events_of_speech(stack: Stack) -> None:
    first, second = spoken(3_100, digits=(4, 4)), spoken(3_101, digits=(4, 4))
    pause = np.zeros(24_000, first.pcm.dtype)
    pcm = np.concatenate([first.pcm, pause, second.pcm, pause]).tobytes()
    query = f"{RATE}&interim_results=true&vad_events=true&utterance_end_ms=1000"
    for _ in range(PARTIALS_TRIES):
        messages = await listen(stack, query, pcm, pace_s=0.03)
        assert final_text(messages) == join_texts([first.text, second.text])
        if any(m["type"] == "Results" and not m["is_final"] for m in messages):
            break
    kinds = [message["type"] for message in messages]
    assert kinds[0] == "SpeechStarted" and kinds.count("UtteranceEnd") >= 2
    assert [m for m in messages if m["type"] == "Results" and not m["is_final"]]
    for before, message in itertools.pairwise(messages):
        if message["type"] == "UtteranceEnd":
            words = before["channel"]["alternatives"][0]["words"]
            assert message["last_word_end"] == words[-1]["end"]


async def test_finalize_ends_an_utterance_and_not_the_stream(stack: Stack) -> None:
    said = [spoken(3_200 + n, digits=(3, 3)) for n in range(2)]
    texts = []
    async with open_socket(url(stack, RATE + "&endpointing=false")) as socket:
        for audio in said:
            await socket.send(audio.pcm.tobytes())
            await socket.send('{"type": "Finalize"}')
            found = [""]
            while not found[-1]:
                message = json.loads(await asyncio.wait_for(socket.recv(), 60))
                found = [*found, message["channel"]["alternatives"][0]["transcript"]]
            while not message["from_finalize"]:
                message = json.loads(await asyncio.wait_for(socket.recv(), 60))
            texts.append(found[-1])
    assert texts == [audio.text for audio in said]


@pytest.mark.parametrize(
    ("query", "container"), [("", "webm"), ("encoding=ogg-opus", "ogg"), ("encoding=flac", "flac")]
)
async def test_containers(stack: Stack, query: str, container: str) -> None:
    audio = spoken(3_300)
    messages = await listen(stack, query, encode(audio.pcm, container, 48_000, 1))
    assert final_text(messages) == audio.text


async def test_a_query_that_cannot_be_understood_is_400(stack: Stack) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with open_socket(url(stack, "encoding=linear16&sample_rate=fast")):
            pass
    response = refusal.value.response
    assert response.status_code == 400
    assert json.loads(response.body or b"")["err_code"] == "INVALID_QUERY_PARAMETER"


@pytest.mark.parametrize(("query", "container"), [("model=nova-3", "mp3"), (RATE, None)])
async def test_a_file(stack: Stack, query: str, container: str | None) -> None:
    audio = spoken(3_400)
    data = encode(audio.pcm, container, 48_000, 1) if container else raw(audio)
    address = f"{stack.http_url()}/v1/listen?{query}"
    answer = await asyncio.to_thread(ask, address, "POST", {"Content-Type": "audio/*"}, data)
    assert answer.status == 200
    body = answer.body
    assert body["results"]["channels"][0]["alternatives"][0]["transcript"] == audio.text


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "EMPTY_FILE"),
        (b"not audio at all" * 800, "BAD_AUDIO"),
        # Messages of a stream, which a file does not have.
        (b"{}", "BAD_AUDIO"),
        (b'{"type":"CloseStream"}', "BAD_AUDIO"),
        (b'{"type":"KeepAlive"}', "BAD_AUDIO"),
        # It is refused while the client is still sending.
        (b"\x93NUMPY" * 1_000_000, "BAD_AUDIO"),
    ],
)
async def test_a_file_without_audio_is_400(stack: Stack, data: bytes, code: str) -> None:
    address = f"{stack.http_url()}/v1/listen"
    answer = await asyncio.to_thread(ask, address, "POST", {}, data)
    assert (answer.status, answer.body["err_code"]) == (400, code)
