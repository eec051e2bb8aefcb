"""The native protocol on the wire: acknowledgements, mistakes and their answers."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from tests.integration.speech import chunk_message, chunks_of, spoken
from tools.lab.harness.stack import Stack


class Talk:
    """One raw connection; ``ask`` sends and returns the next answer."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.session_id = str(uuid.uuid4())

    async def answer(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            answer: dict[str, Any] = json.loads(await self.socket.recv())
            return answer

    async def ask(self, message: dict[str, Any] | str | bytes) -> dict[str, Any]:
        text = json.dumps(message) if isinstance(message, dict) else message
        await self.socket.send(text)
        return await self.answer()

    async def start(self, **fields: Any) -> dict[str, Any]:
        return await self.ask({"action": "start", "session_id": self.session_id, **fields})

    async def chunk(self, index: int, data: bytes) -> dict[str, Any]:
        return await self.ask(chunk_message(self.session_id, index, data))

    async def finish(self) -> dict[str, Any]:
        """The final result, whatever comes before it."""
        await self.socket.send(json.dumps({"action": "finish", "session_id": self.session_id}))
        while (answer := await self.answer())["type"] != "final_result":
            pass
        return answer


@asynccontextmanager
async def talking(stack: Stack) -> AsyncIterator[Talk]:
    async with websockets.connect(stack.url(), compression=None, proxy=None) as socket:
        yield Talk(socket)


async def _close_code(talk: Talk) -> int | None:
    with pytest.raises(websockets.ConnectionClosed) as caught:
        async with asyncio.timeout(30):
            while True:
                await talk.socket.recv()
    received = caught.value.rcvd
    return received.code if received is not None else None


async def test_a_conversation_as_documented(stack: Stack) -> None:
    audio = spoken(6_000, digits=(4, 4))
    async with talking(stack) as talk:
        started = await talk.start()
        assert started.pop("resume_token")
        assert started.pop("abilities")["batch_jobs"] >= 1
        assert started == {
            "type": "ack",
            "status": "session_started",
            "session_id": talk.session_id,
            "next_chunk_index": 0,
            "model": "demo",
            "warnings": [],
        }
        chunks = chunks_of(audio, "raw", "", 16_000, 1, 500)
        for index, chunk in enumerate(chunks):
            ack = await talk.chunk(index, chunk)
            assert ack == {"type": "ack", "status": "received", "chunk_index": index}
        final = await talk.finish()
        assert final == {
            "type": "final_result",
            "session_id": talk.session_id,
            "text": audio.text,
            "duration": int(len(audio.pcm) / 16) / 1000,
            "chunk_count": len(chunks),
            "stored": True,
        }
        assert await _close_code(talk) == 1000


async def test_repeat_conflict_gap_and_recovery(stack: Stack) -> None:
    audio = spoken(6_001, digits=(4, 4))
    chunks = chunks_of(audio, "raw", "", 16_000, 1, 500)
    async with talking(stack) as talk:
        await talk.start()
        await talk.chunk(0, chunks[0])
        assert (await talk.chunk(0, chunks[0]))["status"] == "received"
        conflict = await talk.chunk(0, chunks[1])
        assert (conflict["type"], conflict["code"]) == ("error", "seq_conflict")
        gap = await talk.chunk(2, chunks[2])
        assert (gap["code"], gap["expected_chunk_index"]) == ("expected_seq", 1)
        for index, chunk in enumerate(chunks[1:], 1):
            await talk.chunk(index, chunk)
        assert (await talk.finish())["text"] == audio.text


async def test_messages_out_of_order_are_bad_state(stack: Stack) -> None:
    async with talking(stack) as talk:
        assert (await talk.chunk(0, b""))["code"] == "bad_state"
        assert (await talk.ask({"action": "finish", "session_id": "x"}))["code"] == "bad_state"
        await talk.start()
        assert (await talk.start())["code"] == "bad_state"
        assert (await talk.finish())["text"] == ""


async def test_a_chunk_after_finish_is_bad_state(stack: Stack) -> None:
    audio = spoken(6_002, digits=(3, 3))
    async with talking(stack) as talk:
        await talk.start()
        await talk.chunk(0, audio.pcm.tobytes())
        late = chunk_message(talk.session_id, 1, audio.pcm.tobytes())
        await talk.socket.send(json.dumps({"action": "finish", "session_id": talk.session_id}))
        await talk.socket.send(late)
        answers = [await talk.answer()]
        while answers[-1]["type"] != "final_result":
            answers.append(await talk.answer())
        assert [a["code"] for a in answers if a["type"] == "error"] == ["bad_state"]
        assert answers[-1]["text"] == audio.text
        assert answers[-1]["chunk_count"] == 1


@pytest.mark.parametrize(
    "message",
    ["{", '{"action":"dance"}', "[" * 100_000, '{"action":"chunk","session_id":"a"}', "NaN"],
)
async def test_a_bad_message_is_answered_and_the_session_continues(
    stack: Stack, message: str
) -> None:
    async with talking(stack) as talk:
        await talk.start()
        for _ in range(4):  # Never three in a row.
            assert (await talk.ask(message))["code"] == "bad_message"
            assert (await talk.ask(message))["code"] == "bad_message"
            assert (await talk.chunk(0, b"\0\0"))["status"] == "received"
        assert (await talk.finish())["type"] == "final_result"


async def test_three_bad_messages_in_a_row_close_with_1008(stack: Stack) -> None:
    async with talking(stack) as talk:
        await talk.start()
        for _ in range(3):
            assert (await talk.ask("{"))["code"] == "bad_message"
        assert await _close_code(talk) == 1008


async def test_a_message_over_the_limit_closes_with_1009(stack: Stack) -> None:
    async with talking(stack) as talk:
        await talk.start()
        await talk.socket.send(b"\0" * ((1 << 20) + 1))
        assert await _close_code(talk) == 1009


async def test_bad_base64_and_bad_audio_are_answered(stack: Stack) -> None:
    async with talking(stack) as talk:
        await talk.start()
        bad = await talk.ask(
            {
                "action": "chunk",
                "session_id": talk.session_id,
                "chunk_index": 0,
                "audio_data": "no base64!",
            }
        )
        assert (bad["code"], bad["chunk_index"]) == ("bad_base64", 0)
        truncated = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + b"\0" * 40
        assert (await talk.chunk(0, truncated))["status"] == "received"
        problem = await talk.answer()
        assert (problem["code"], problem["chunk_index"]) == ("bad_audio", 0)
        assert (await talk.chunk(1, b"\0\0" * 100))["status"] == "received"
        assert (await talk.finish())["type"] == "final_result"


async def test_an_odd_byte_at_the_end_is_bad_audio_and_results_are_kept(stack: Stack) -> None:
    audio = spoken(6_002, digits=(3, 3))
    async with talking(stack) as talk:
        await talk.start()
        await talk.chunk(0, audio.pcm.tobytes() + b"\0")
        await talk.socket.send(json.dumps({"action": "finish", "session_id": talk.session_id}))
        answers: list[dict[str, Any]] = []
        while not answers or answers[-1]["type"] != "final_result":
            answers.append(await talk.answer())
        assert [a["code"] for a in answers if a["type"] == "error"] == ["bad_audio"]
        assert answers[-1]["text"] == audio.text


async def test_mode_chunk_gives_one_result_for_each_chunk(stack: Stack) -> None:
    audios = [spoken(6_010 + n, digits=(2, 3)) for n in range(3)]
    async with talking(stack) as talk:
        await talk.start(mode="chunk")
        for index, audio in enumerate(audios):
            await talk.socket.send(chunk_message(talk.session_id, index, audio.pcm.tobytes()))
        await talk.socket.send(json.dumps({"action": "finish", "session_id": talk.session_id}))
        results = []
        while (answer := await talk.answer())["type"] != "final_result":
            if answer["type"] == "chunk_result":
                results.append((answer["chunk_index"], answer["segment_index"], answer["text"]))
    assert results == [(n, n, audio.text) for n, audio in enumerate(audios)]
