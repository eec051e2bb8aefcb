"""The native protocol on the wire: acknowledgements, mistakes and their answers."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from gateway.session.transcript import join_texts
from tests.integration.admitted import open_socket
from tests.integration.speech import chunk_message, chunks_of, spoken
from tools.lab.encoded_audio import encode, encode_tracks
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
    async with open_socket(stack.url(), compression=None, proxy=None) as socket:
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


@pytest.mark.parametrize(
    ("container", "signs", "message"),
    [
        ("flac", ((1, -1),), "of 2 audio channels, the loudest alone was used: number 1"),
        ("m4a", ((-1, 1),), "of 2 audio channels, the loudest alone was used: number "),
        ("mkv", ((0,), (1,)), "of 2 audio tracks, the loudest alone was used: number 2"),
    ],
)
async def test_the_final_result_and_the_log_name_the_used_part_of_the_audio(
    stack: Stack, container: str, signs: tuple[tuple[int, ...], ...], message: str
) -> None:
    """Opposite channels, whose mean is silence; and a film whose first track is silent."""
    audio = spoken(6_005, digits=(4, 4))
    tracks = [np.stack([audio.pcm * sign for sign in channels]) for channels in signs]
    async with talking(stack) as talk:
        await talk.start()
        await talk.socket.send(encode_tracks(tracks, container, 48_000))
        final = await talk.finish()
        assert final["text"] == audio.text
        (warning,) = final["warnings"]
        assert warning["code"] == "loudest_only" and warning["message"].startswith(message)
        reported = [
            line
            for log in stack.logs.glob("gateway*.log")
            for line in log.read_text().splitlines()
            if "audio_partly_used" in line and talk.session_id in line
        ]
        assert len(reported) == 1 and message in reported[0]


async def test_one_connection_has_one_session_after_the_other(stack: Stack) -> None:
    """As desktop clients have it: the second recording begins 1 s after the first, the third at
    once, while the final result of the second is under way."""
    recordings = [spoken(6_010 + number, digits=(3, 4)) for number in range(3)]
    async with talking(stack) as talk:
        for number, audio in enumerate(recordings):
            started = await talk.start()
            assert (started["status"], started["session_id"]) == (
                "session_started",
                talk.session_id,
            )
            pcm = audio.pcm.tobytes()
            assert (await talk.chunk(0, pcm))["chunk_index"] == 0
            assert (await talk.finish())["text"] == audio.text
            talk.session_id = str(uuid.uuid4())
            if number == 0:
                await asyncio.sleep(1)
        messages = (
            {"action": "start", "session_id": "first" + talk.session_id},
            {"action": "finish", "session_id": "first" + talk.session_id},
            {"action": "start", "session_id": talk.session_id},
        )
        for message in messages:
            await talk.socket.send(json.dumps(message))
        answers = [await talk.answer() for _ in messages]
        assert [answer["type"] for answer in answers] == ["ack", "final_result", "ack"]
        assert answers[2]["session_id"] == talk.session_id


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


async def test_a_recording_of_minutes_in_one_message(stack: Stack) -> None:
    """As desktop clients send it: more than a mebibyte, base64 with a prefix."""
    first, second = spoken(6_020, digits=(3, 3)), spoken(6_021, digits=(3, 3))
    pcm = np.concatenate([first.pcm, np.zeros(150 * 16_000, "<i2"), second.pcm])
    wav = encode(pcm, "wav", 16_000, 1)
    assert len(wav) > 4 << 20
    async with talking(stack) as talk, talking(stack) as other:
        # Right behind the start, whose ack is not awaited.
        await talk.socket.send(json.dumps({"action": "start", "session_id": talk.session_id}))
        audio = "data:audio/wav;base64," + base64.b64encode(wav).decode()
        message = {"action": "chunk", "session_id": talk.session_id, "chunk_index": 0}
        await talk.socket.send(json.dumps({**message, "audio_data": audio}))
        await other.start()
        assert (await other.chunk(0, second.pcm.tobytes()))["status"] == "received"
        assert (await other.finish())["text"] == second.text
        assert (await talk.answer())["status"] == "session_started"
        assert (await talk.answer())["status"] == "received"
        result = await talk.answer()
        text = f"{first.text} {second.text}"
        assert (result["type"], result["chunk_index"], result["text"]) == ("chunk_result", 0, text)
        assert (result["first_segment_index"], result["segment_index"]) == (0, 1)
        final = await talk.finish()
        assert (final["text"], final["chunk_count"]) == (text, 1)


async def test_each_chunk_with_a_whole_file_has_one_result(stack: Stack) -> None:
    """A recording cut into files by time, as recorders do, and a silent file."""
    audio = spoken(6_030, digits=(10, 10))
    pcm = np.concatenate([audio.pcm, np.zeros(3_600 * 16, "<i2"), audio.pcm])
    files = [
        encode(pcm[at : at + 3_600 * 16], "wav", 16_000, 1) for at in range(0, len(pcm), 3_600 * 16)
    ]
    async with talking(stack) as talk:
        await talk.start()
        for index, file in enumerate(files):
            await talk.socket.send(chunk_message(talk.session_id, index, file))
        await talk.socket.send(json.dumps({"action": "finish", "session_id": talk.session_id}))
        results: list[dict[str, Any]] = []
        while (answer := await talk.answer())["type"] != "final_result":
            if answer["type"] == "chunk_result":
                results.append(answer)
        assert [result["chunk_index"] for result in results] == list(range(len(files)))
        assert any(not result["text"] and "segment_index" not in result for result in results)
        assert join_texts(result["text"] for result in results) == answer["text"]
        assert answer["text"] == f"{audio.text} {audio.text}"


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
