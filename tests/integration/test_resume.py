"""Clients whose connection is lost go on where they were, on the same gateway or on another."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import websockets
from psycopg.rows import dict_row
from websockets.asyncio.client import ClientConnection

from gateway.transcript import join_texts
from tests.conftest import EmbeddedServices
from tests.integration.speech import Shape, Spoken, chunks_of, spoken
from tests.integration.stack import Stack, running_stack


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

    async def connect(self, url: str, **fields: Any) -> dict[str, Any]:
        """Start, or with a token go on; returns the answer."""
        self._socket = await websockets.connect(url, compression=None, proxy=None)
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


# --------------------------------------------------------------------------------- the same gateway


async def test_a_lost_connection_in_the_middle_of_an_utterance(stack: Stack) -> None:
    audio = spoken(7_000, digits=(12, 12))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    started = await client.connect(stack.url())
    for count in (7, 1, 30):
        await client.send(count)
        await client.lose_connection()
        resumed = await client.connect(stack.url())
        assert resumed == {
            "type": "ack",
            "status": "session_resumed",
            "session_id": client.session_id,
            "resume_token": started["resume_token"],
            "next_chunk_index": resumed["next_chunk_index"],
            "next_segment_index": len(client.texts),
        }
    await client.send()
    await client.finish()
    assert_stored_once(stack, client, audio)


@pytest.mark.parametrize("container", ["wav", "webm"])
async def test_a_sliced_file_goes_on_in_its_middle(stack: Stack, container: str) -> None:
    audio = spoken(7_001, digits=(8, 8))
    client = ResumingClient(chunks_of(audio, "sliced", container, 48_000, 1, 200))
    await client.connect(stack.url())
    await client.send(6)
    await client.lose_connection()
    await client.connect(stack.url())
    await client.send()
    await client.finish()
    assert_stored_once(stack, client, audio)


async def test_a_final_result_that_was_lost_is_told_again(stack: Stack) -> None:
    audio = spoken(7_002, digits=(4, 4))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 500))
    await client.connect(stack.url())
    await client.send()
    first = await client.finish()
    await client.close()
    client.final = None
    again = await client.connect(stack.url())
    assert again["status"] == "session_resumed"
    assert again["next_chunk_index"] == first["chunk_count"]
    assert await client.finish() == first
    assert await client.close_code() == 1000
    assert_stored_once(stack, client, audio)


async def test_the_connection_before_is_closed_and_strangers_are_refused(stack: Stack) -> None:
    audio = spoken(7_003, digits=(4, 4))
    chunks = chunks_of(audio, "raw", "", 16_000, 1, 100)
    client = ResumingClient(chunks)
    await client.connect(stack.url())
    await client.send(5)
    stranger = ResumingClient(chunks)
    stranger.session_id = client.session_id
    refused = await stranger.connect(stack.url())
    assert (refused["type"], refused["code"]) == ("error", "session_exists")
    await stranger.close()
    refused = await stranger.connect(stack.url(), resume_token="guessed")
    assert (refused["type"], refused["code"]) == ("error", "not_resumable")
    await stranger.close()

    old = ResumingClient(chunks)
    old._socket = client._socket
    resumed = await client.connect(stack.url())
    assert resumed["status"] == "session_resumed"
    assert await old.close_code() == 1008
    await client.send()
    await client.finish()
    assert_stored_once(stack, client, audio)


# ---------------------------------------------------------------------------------- another gateway


@pytest.fixture(scope="module")
def two(embedded_services: EmbeddedServices) -> Iterator[Stack]:
    """A pipeline with two gateways that may be killed, and a database of its own."""
    name = f"resume_{uuid.uuid4().hex}"
    with psycopg.connect(embedded_services.database_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    url = urlsplit(embedded_services.database_url)._replace(path=f"/{name}").geturl()
    with running_stack(url, embedded_services.redis_url) as running:
        running.start_all(workers=1)
        running.start("gateway2")
        running.wait_ready("gateway2")
        yield running


def kill_gateway(stack: Stack) -> None:
    """kill -9, and a new one in its place."""
    stack.processes.pop("gateway").kill()
    stack.start("gateway")


async def gateway_is_back(stack: Stack) -> None:
    await asyncio.to_thread(stack.wait_ready, "gateway")


async def test_a_client_lands_on_another_gateway_while_the_first_is_alive(two: Stack) -> None:
    audio = spoken(7_100, digits=(14, 14))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    await client.connect(two.url("gateway"))
    await client.send(len(client._chunks) // 2)
    await client.listen_for_texts(1)
    old = ResumingClient([])
    old._socket = client._socket
    resumed = await client.connect(two.url("gateway2"))
    assert resumed["status"] == "session_resumed"
    assert resumed["next_segment_index"] == len(client.texts)
    assert await old.close_code() == 1008
    await client.send(3)
    await client.lose_connection()
    again = await client.connect(two.url("gateway"))
    assert again["status"] == "session_resumed"
    await client.send()
    await client.finish()
    assert_stored_once(two, client, audio)


@pytest.mark.parametrize(
    ("shape", "container", "chunk_ms"),
    [("raw", "", 100), ("sliced", "wav", 100), ("sliced", "webm", 200), ("files", "wav", 1000)],
)
async def test_a_gateway_is_killed_and_its_clients_go_on_at_the_other(
    two: Stack, shape: Shape, container: str, chunk_ms: int
) -> None:
    audios = [spoken(7_110 + n, digits=(12, 14)) for n in range(3)]
    clients = [
        ResumingClient(chunks_of(audio, shape, container, 16_000, 1, chunk_ms)) for audio in audios
    ]
    for number, client in enumerate(clients):
        await client.connect(two.url("gateway"))
        await client.send(len(client._chunks) * (number + 1) // 4)
    await clients[-1].listen_for_texts(1)
    kill_gateway(two)
    for client in clients:
        assert await client.close_code() is None
        resumed = await client.connect(two.url("gateway2"))
        assert resumed["type"] == "ack"
        await client.send()
    for client, audio in zip(clients, audios, strict=True):
        await client.finish()
        assert_stored_once(two, client, audio)
    await gateway_is_back(two)


async def test_mode_chunk_makes_no_chunk_twice(two: Stack) -> None:
    audios = [spoken(7_120 + n, digits=(2, 3)) for n in range(4)]
    client = ResumingClient([audio.pcm.tobytes() for audio in audios], mode="chunk")
    await client.connect(two.url("gateway2"))
    await client.send(2)
    await client.listen_for_texts(2)
    await client.lose_connection()
    await client.connect(two.url("gateway"))
    await client.send()
    final = await client.finish()
    assert [client.texts[n] for n in range(4)] == [audio.text for audio in audios]
    assert final["chunk_count"] == 4


async def test_a_complete_session_is_told_again_by_any_gateway(two: Stack) -> None:
    audio = spoken(7_130, digits=(4, 4))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 500))
    await client.connect(two.url("gateway"))
    await client.send()
    first = await client.finish()
    client.final, client.texts = None, {}
    again = await client.connect(two.url("gateway2"))
    assert again["next_chunk_index"] == first["chunk_count"]
    assert await client.finish() == first
    assert_stored_once(two, client, audio)


async def test_a_wrong_token_changes_nothing_anywhere(two: Stack) -> None:
    audio = spoken(7_131, digits=(4, 4))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    await client.connect(two.url("gateway"))
    await client.send(5)
    stranger = ResumingClient([])
    stranger.session_id = client.session_id
    refused = await stranger.connect(two.url("gateway2"), resume_token="guessed")
    assert refused["code"] == "not_resumable"
    await stranger.close()
    await client.send()
    await client.finish()
    assert_stored_once(two, client, audio)


async def test_a_session_that_nobody_knows_begins_anew_with_the_token_shown(two: Stack) -> None:
    audio = spoken(7_132, digits=(4, 4))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 500))
    started = await client.connect(two.url("gateway"), resume_token="of a life before")
    assert (started["status"], started["next_chunk_index"]) == ("session_started", 0)
    assert started["resume_token"] == "of a life before"
    await client.send()
    await client.finish()
    assert_stored_once(two, client, audio)


# ---------------------------------------------------------------------------------- a gateway stops


async def test_a_gateway_that_is_told_to_stop_sends_its_clients_elsewhere(two: Stack) -> None:
    audio = spoken(7_200, digits=(12, 12))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    await client.connect(two.url("gateway"))
    await client.send(len(client._chunks) // 2)
    gateway = two.processes.pop("gateway")
    stopping = asyncio.create_task(asyncio.to_thread(gateway.terminate))
    assert await client.close_code() == 1012
    assert await stopping == 0
    two.start("gateway")
    resumed = await client.connect(two.url("gateway2"))
    assert resumed["status"] == "session_resumed"
    await client.send()
    await client.finish()
    assert_stored_once(two, client, audio)
    await gateway_is_back(two)


async def test_what_is_not_stored_when_a_gateway_stops_is_stored_by_the_next(two: Stack) -> None:
    audio = spoken(7_201, digits=(14, 14))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    left = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    await left.connect(two.url("gateway"))
    await left.send()
    await left.listen_for_texts(1)
    two.processes.pop("persistence").kill()
    await client.connect(two.url("gateway"))
    await client.send()
    final = await client.finish()
    assert not final["stored"]
    gateway = two.processes.pop("gateway")
    assert await asyncio.to_thread(gateway.terminate) == 0
    await left.close()
    (spooled,) = (event for event in gateway.events if event["event"] == "records_spooled")
    assert spooled["records"] >= 3
    two.start("persistence")
    two.start("gateway").event("spool_emptied")
    await gateway_is_back(two)
    client.final["stored"] = True  # type: ignore[index]
    assert_stored_once(two, client, audio)
    assert _status(two, left) == "interrupted"


def _status(stack: Stack, client: ResumingClient) -> str:
    with psycopg.connect(stack.database_url) as connection:
        query = "SELECT status FROM asr_sessions WHERE id = %s"
        found = connection.execute(query, [client.session_id]).fetchone()
    assert found is not None
    return str(found[0])
