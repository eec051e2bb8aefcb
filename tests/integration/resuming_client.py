"""Drives the client's protocol step by step, and loses its connection when a test asks for it."""

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

from asr_client.events import Segment
from asr_client.protocol import ClientProtocol, start_fields
from gateway.session.transcript import join_texts
from tests.integration.speech import Spoken
from tools.lab.harness.stack import Stack

PATIENCE_S = 60.0
"""How long a refused client retries: a gateway may be busy with tests that run beside."""


async def _admitted(url: str, patience_s: float) -> ClientConnection:
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return await websockets.connect(url, compression=None, proxy=None)
        except websockets.InvalidStatus as error:
            retry_after_s = float(error.response.headers.get("Retry-After", "inf"))
            if time.monotonic() + retry_after_s > deadline_s:
                error.add_note(f"response: {error.response.body!r}")
                raise
            await asyncio.sleep(retry_after_s)


class ResumingClient:
    """A session whose ``chunks`` are sent, and whose messages are received, one by one."""

    def __init__(
        self, chunks: Sequence[bytes], session_id: str | None = None, **start: Any
    ) -> None:
        self.chunks = chunks
        self.texts: dict[int, str] = {}
        self.final: dict[str, Any] | None = None
        self.socket: ClientConnection | None = None
        self._start = start_fields(session_id or str(uuid.uuid4()), **start)
        self._released: list[bytes] = []
        self._protocol = ClientProtocol(self._start, self._released, binary=True)

    @property
    def session_id(self) -> str:
        return self._protocol.session_id

    @property
    def resume_token(self) -> str | None:
        return self._protocol.resume_token

    def take_over(self, resume_token: str | None) -> None:
        """Know no more of the session than its token, as another process would."""
        self.texts, self.final = {}, None
        self._protocol = ClientProtocol(self._start, self._released, binary=True)
        self._protocol.resume_token = resume_token

    async def connect(
        self, url: str, *, patience_s: float = PATIENCE_S, **fields: Any
    ) -> dict[str, Any]:
        """Start or resume the session, with ``fields`` changed in the first message; return the
        answer."""
        self._protocol.connection_lost()
        self.socket = await _admitted(url, patience_s)
        await self.socket.send(json.dumps(json.loads(self._protocol.start_message()) | fields))
        return await self.listen()

    async def send(self, count: int | None = None) -> None:
        """Send the next ``count`` chunks, or all that are left."""
        end = len(self.chunks) if count is None else self._protocol.sent_chunks + count
        self._released += self.chunks[len(self._released) : end]
        await self._send_messages()

    async def _send_messages(self) -> None:
        assert self.socket is not None
        while (message := self._protocol.next_message()) is not None:
            await self.socket.send(message)

    async def finish(self) -> dict[str, Any]:
        """End the audio, wait for the final result and close the connection."""
        self._protocol.finish()
        await self._send_messages()
        while self.final is None:
            await self.listen()
        await self.close()
        return self.final

    async def listen(self) -> dict[str, Any]:
        """Receive one message; a segment must not be a repetition."""
        assert self.socket is not None
        message = await self.socket.recv()
        event = self._protocol.receive(message)
        assert event is not None, message
        answer: dict[str, Any] = json.loads(message)
        if isinstance(event, Segment):
            self.texts[event.segment_index] = event.text
        elif answer["type"] == "final_result":
            self.final = answer
        return answer

    async def listen_for_texts(self, count: int) -> None:
        while len(self.texts) < count:
            await self.listen()

    async def lose_connection(self) -> None:
        """Abort the connection without a close frame, as a network does."""
        assert self.socket is not None
        self.socket.transport.abort()
        await self.socket.wait_closed()

    async def close(self) -> None:
        assert self.socket is not None
        await self.socket.close()


async def close_code(socket: ClientConnection | None) -> int | None:
    """Receive until the server closes the connection; ``None``: without a close frame."""
    assert socket is not None
    with pytest.raises(websockets.ConnectionClosed) as caught:
        while True:
            await socket.recv()
    return caught.value.rcvd.code if caught.value.rcvd is not None else None


def assert_stored_once(stack: Stack, client: ResumingClient, audio: Spoken) -> None:
    """The text is that of a session without faults; each segment was received and stored once."""
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
