"""FunASR's newer protocol against the whole pipeline. ``python -m tests.public_clients`` runs
FunASR's own clients of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from websockets.asyncio.client import ClientConnection

from gateway.session.transcript import join_texts
from tests.integration.admitted import open_socket
from tests.integration.speech import slices, spoken
from tests.integration.test_dialects import funasr_url, until_stored
from tools.lab.harness.stack import Stack

Message = dict[str, Any]


async def until(socket: ClientConnection, last: Message) -> list[Message]:
    """The messages up to the one that has the fields of ``last``."""
    messages: list[Message] = []
    while not messages or messages[-1] | last != messages[-1]:
        messages.append(json.loads(await asyncio.wait_for(socket.recv(), 60)))
    return messages


def text(message: Message) -> str:
    return join_texts(sentence["text"] for sentence in message["sentences"])


async def test_recordings_one_after_another_on_one_connection(stack: Stack) -> None:
    said = [spoken(3_400 + n) for n in range(2)]
    texts = []
    async with open_socket(funasr_url(stack)) as socket:
        for audio in said:
            await socket.send("START")
            await until(socket, {"event": "started"})
            for piece in slices(audio.pcm.tobytes(), 4_096):
                await socket.send(piece)
            await socket.send("STOP")
            *_, final, _ = await until(socket, {"event": "stopped"})
            assert final["is_final"] and final["partial"] == ""
            texts.append(text(final))
    assert texts == [audio.text for audio in said]
    await until_stored(stack, "funasr", texts)


async def test_the_client_ends_utterances_itself(stack: Stack) -> None:
    said = [spoken(3_500 + n, digits=(3, 3)) for n in range(2)]
    texts = []
    async with open_socket(funasr_url(stack)) as socket:
        await socket.send("START")
        for audio in said:
            await socket.send(audio.pcm.tobytes())
            await socket.send("COMMIT")
            *_, final = await until(socket, {"is_final": True})
            texts.append(text(final))
        await socket.send("STOP")
        *_, final, _ = await until(socket, {"event": "stopped"})
        assert final["sentences"] == []
    assert texts == [audio.text for audio in said]
