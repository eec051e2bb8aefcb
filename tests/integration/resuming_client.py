"""A client of the native protocol that loses its connection when a test wants it to."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
import websockets
from psycopg.rows import dict_row
from websockets.asyncio.client import ClientConnection

from gateway.session.transcript import join_texts
from tests.integration.speech import Spoken
from tools.lab.harness.stack import Stack

PATIENCE_S = 15.0
"""For so long a client that is refused asks again."""


async def _admitted(url: str, patience_s: float) -> ClientConnection:
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return await websockets.connect(url, compression=None, proxy=None)
        except websockets.InvalidStatus as error:
            retry_after_s = float(error.response.headers.get("Retry-After", "inf"))
            if time.monotonic() + retry_after_s > deadline_s:
                error.add_note(f"it said: {error.response.body!r}")
                raise
            await asyncio.sleep(retry_after_s)


class ResumingClient:
    """The least a client needs in order to lose nothing: its chunks, its token, its texts."""

    def __init__(self, chunks: Sequence[bytes], **start: Any) -> None:
        self.session_id = str(uuid.uuid4())
        self.token: str | None = None
        self.texts: dict[int, str] = {}
        self.final: dict[str, Any] | None = None
        self.next_chunk_index = 0
        self._chunks = chunks
        self._start = start
        self._socket: ClientConnection | None = None

    async def connect(
        self, url: str, *, patience_s: float = PATIENCE_S, **fields: Any
    ) -> dict[str, Any]:
        """Start, or with a token go on; returns the answer. Asks again when it is told to, until
        its patience is over: a gateway may be busy with the tests that run beside."""
        self._socket = await _admitted(url, patience_s)
        message = {"action": "start", "session_id": self.session_id, **self._start, **fields}
        if self.token is not None and "resume_token" not in fields:
            message |= {"resume_token": self.token, "next_segment_index": len(self.texts)}
        await self._socket.send(json.dumps(message))
        answer: dict[str, Any] = json.loads(await self._socket.recv())
        if answer["type"] == "ack":
            self.token = answer["resume_token"]
            self.next_chunk_index = answer["next_chunk_index"]
        return answer

    async def send(self, count: int | None = None) -> None:
        """The next ``count`` chunks, or all that are left."""
        assert self._socket is not None
        end = len(self._chunks) if count is None else self.next_chunk_index + count
        while self.next_chunk_index < min(end, len(self._chunks)):
            await self._socket.send(self._chunks[self.next_chunk_index])
            self.next_chunk_index += 1

    async def finish(self) -> dict[str, Any]:
        assert self._socket is not None
        await self._socket.send(json.dumps({"action": "finish", "session_id": self.session_id}))
        while self.final is None:
            await self.listen()
        await self._socket.close()
        return self.final

    async def listen(self) -> dict[str, Any]:
        """Take one answer; each text must be news, and the next."""
        assert self._socket is not None
        answer: dict[str, Any] = json.loads(await self._socket.recv())
        if answer["type"] == "chunk_result":
            assert answer["segment_index"] == len(self.texts)
            self.texts[len(self.texts)] = answer["text"]
        elif answer["type"] == "final_result":
            self.final = answer
        return answer

    async def listen_for_texts(self, count: int) -> None:
        while len(self.texts) < count:
            await self.listen()

    async def lose_connection(self) -> None:
        """As a network does it: without a close frame."""
        assert self._socket is not None
        self._socket.transport.abort()
        await self._socket.wait_closed()

    async def close_code(self) -> int | None:
        assert self._socket is not None
        with pytest.raises(websockets.ConnectionClosed) as caught:
            while True:
                await self._socket.recv()
        return caught.value.rcvd.code if caught.value.rcvd is not None else None

    async def close(self) -> None:
        assert self._socket is not None
        await self._socket.close()


def assert_stored_once(stack: Stack, client: ResumingClient, audio: Spoken) -> None:
    """The text is that of a session without faults, told and stored, each segment once."""
    assert client.final is not None and client.final["stored"]
    assert client.final["text"] == audio.text == join_texts(client.texts.values())
    with psycopg.connect(stack.database_url, row_factory=dict_row) as connection:
        session = connection.execute(
            "SELECT * FROM asr_sessions WHERE id = %s", [client.session_id]
        ).fetchone()
        segments = connection.execute(
            "SELECT * FROM asr_segments WHERE session_id = %s ORDER BY segment_index",
            [client.session_id],
        ).fetchall()
    assert session is not None
    assert (session["status"], session["text"]) == ("completed", audio.text)
    assert session["chunk_count"] == client.final["chunk_count"]
    assert [row["text"] for row in segments] == [client.texts[n] for n in range(len(segments))]
