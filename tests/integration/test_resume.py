"""Clients resume after a lost connection, on the same gateway or on another."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator

import psycopg
import pytest
import websockets

from tests.conftest import EmbeddedServices
from tests.integration.admitted import open_session
from tests.integration.resuming_client import ResumingClient, assert_stored_once, close_code
from tests.integration.speech import Shape, chunks_of, spoken
from tools.lab.harness import database
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import LoggedProcess
from tools.lab.harness.stack import Stack, running_stack, wait_until

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
            **started,
            "status": "session_resumed",
            "next_chunk_index": resumed["next_chunk_index"],
            "next_segment_index": len(client.texts),
        }
    await client.send()
    await client.finish()
    assert_stored_once(stack, client, audio)


@pytest.mark.parametrize("container", ["wav", "webm"])
async def test_a_sliced_file_continues_in_its_middle(stack: Stack, container: str) -> None:
    audio = spoken(7_001, digits=(8, 8))
    client = ResumingClient(chunks_of(audio, "sliced", container, 48_000, 1, 200))
    await client.connect(stack.url())
    await client.send(6)
    await client.lose_connection()
    await client.connect(stack.url())
    await client.send()
    await client.finish()
    assert_stored_once(stack, client, audio)


async def test_a_lost_final_result_is_sent_again(stack: Stack) -> None:
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
    assert_stored_once(stack, client, audio)


async def test_the_connection_before_is_closed_and_strangers_are_refused(stack: Stack) -> None:
    audio = spoken(7_003, digits=(4, 4))
    chunks = chunks_of(audio, "raw", "", 16_000, 1, 100)
    client = ResumingClient(chunks)
    await client.connect(stack.url())
    await client.send(5)
    stranger = ResumingClient(chunks, client.session_id)
    refused = await stranger.connect(stack.url())
    assert (refused["type"], refused["code"]) == ("error", "session_exists")
    await stranger.close()
    refused = await stranger.connect(stack.url(), resume_token="guessed")
    assert (refused["type"], refused["code"]) == ("error", "not_resumable")
    await stranger.close()

    old = client.socket
    resumed = await client.connect(stack.url())
    assert resumed["status"] == "session_resumed"
    assert await close_code(old) == 1008
    await client.send()
    await client.finish()
    assert_stored_once(stack, client, audio)


# ---------------------------------------------------------------------------------- another gateway


@pytest.fixture(scope="module")
def two(embedded_services: EmbeddedServices) -> Iterator[Stack]:
    """A pipeline with two gateways that may be killed, and a database of its own."""
    url = database.create(embedded_services.database_url, "resume")
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
    await client.send(len(client.chunks) // 2)
    await client.listen_for_texts(1)
    old = client.socket
    resumed = await client.connect(two.url("gateway2"))
    assert resumed["status"] == "session_resumed"
    assert resumed["next_segment_index"] == len(client.texts)
    assert await close_code(old) == 1012
    await client.send(3)
    await client.lose_connection()
    again = await client.connect(two.url("gateway"))
    assert again["status"] == "session_resumed"
    await client.send()
    await client.finish()
    assert_stored_once(two, client, audio)


async def test_a_gateway_that_claims_a_session_too_late_costs_a_reconnection(two: Stack) -> None:
    """Its client has given up on it meanwhile, and speaks to the first one again."""
    audio = spoken(7_105, digits=(12, 12))
    chunks = chunks_of(audio, "raw", "", 16_000, 1, 100)
    async with open_session(two.url("gateway")) as session:
        for chunk in chunks[: len(chunks) // 2]:
            await session.send(chunk)
        late = ResumingClient([], session.session_id)
        late.take_over(session.resume_token)
        answer = await late.connect(two.url("gateway2"))
        assert answer["status"] == "session_resumed"
        await late.lose_connection()
        for chunk in chunks[len(chunks) // 2 :]:
            await session.send(chunk)
        await session.finish()
        final = await session.final()
    assert (final.text, final.stored) == (audio.text, True)
    assert session.connections == 2


@pytest.mark.parametrize(
    ("shape", "container", "chunk_ms"),
    [("raw", "", 100), ("sliced", "wav", 100), ("sliced", "webm", 200), ("files", "wav", 1000)],
)
async def test_a_gateway_is_killed_and_its_clients_continue_at_the_other(
    two: Stack, shape: Shape, container: str, chunk_ms: int
) -> None:
    audios = [spoken(7_110 + n, digits=(12, 14)) for n in range(3)]
    clients = [
        ResumingClient(chunks_of(audio, shape, container, 16_000, 1, chunk_ms)) for audio in audios
    ]
    for number, client in enumerate(clients):
        await client.connect(two.url("gateway"))
        await client.send(len(client.chunks) * (number + 1) // 4)
    await clients[-1].listen_for_texts(1)
    kill_gateway(two)
    for client in clients:
        assert await close_code(client.socket) is None
        resumed = await client.connect(two.url("gateway2"))
        assert resumed["type"] == "ack"
        await client.send()
    for client, audio in zip(clients, audios, strict=True):
        await client.finish()
        assert_stored_once(two, client, audio)
    await gateway_is_back(two)


async def test_a_full_gateway_admits_only_resumed_sessions(two: Stack) -> None:
    """From another gateway, and to the one that they are on."""
    audio = spoken(7_150, digits=(14, 14))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    full = await asyncio.to_thread(two.start, "gateway3", ADMIT_UTILISATION_MAX="1e-9")
    await asyncio.to_thread(two.wait_ready, "gateway3")
    first = ResumingClient([])  # It is admitted whenever a worker is ready.
    await first.connect(two.url("gateway3"))
    await client.connect(two.url("gateway"))
    await client.send(len(client.chunks) // 3)
    for suffix in ("", "?resume=" + str(uuid.uuid4()), "?resume="):
        stranger = ResumingClient([])
        with pytest.raises(websockets.InvalidStatus) as caught:
            answer = await stranger.connect(two.url("gateway3") + suffix, patience_s=0)
            await stranger.close()
            pytest.fail(f"{suffix!r} came in: {answer}")
        assert caught.value.response.status_code == 503, suffix
        assert json.loads(caught.value.response.body)["code"] == "overloaded"
        reply = await asyncio.to_thread(two.get, "/api/v1/admission" + suffix, "gateway3")
        assert (reply.status, reply.body["code"]) == (503, "overloaded")
    for _ in range(2):
        await client.lose_connection()
        resume = f"?resume={client.session_id}"
        reply = await asyncio.to_thread(two.get, "/api/v1/admission" + resume, "gateway3")
        assert (reply.status, reply.body) == (200, {"admitted": True})
        back = await client.connect(two.url("gateway3") + resume)
        assert back["status"] == "session_resumed"
        await client.send(len(client.chunks) // 3)
    with pytest.raises(websockets.InvalidStatus):
        await ResumingClient([]).connect(two.url("gateway3"), patience_s=0)
    await first.close()
    await client.send()
    await client.finish()
    assert_stored_once(two, client, audio)
    assert await asyncio.to_thread(full.terminate) == 0
    del two.processes["gateway3"]


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


async def test_any_gateway_repeats_the_result_of_a_complete_session(two: Stack) -> None:
    audio = spoken(7_130, digits=(4, 4))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 500))
    await client.connect(two.url("gateway"))
    await client.send()
    first = await client.finish()
    client.take_over(client.resume_token)
    again = await client.connect(two.url("gateway2"))
    assert again["next_chunk_index"] == first["chunk_count"]
    assert await client.finish() == first
    assert_stored_once(two, client, audio)


async def test_a_wrong_token_changes_nothing_anywhere(two: Stack) -> None:
    audio = spoken(7_131, digits=(4, 4))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    await client.connect(two.url("gateway"))
    await client.send(5)
    stranger = ResumingClient([], client.session_id)
    refused = await stranger.connect(two.url("gateway2"), resume_token="guessed")
    assert refused["code"] == "not_resumable"
    await stranger.close()
    await client.send()
    await client.finish()
    assert_stored_once(two, client, audio)


async def test_an_unknown_session_starts_again_with_its_token(two: Stack) -> None:
    audio = spoken(7_132, digits=(4, 4))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 500))
    started = await client.connect(two.url("gateway"), resume_token="of a life before")
    assert (started["status"], started["next_chunk_index"]) == ("session_started", 0)
    assert started["resume_token"] == "of a life before"
    await client.send()
    await client.finish()
    assert_stored_once(two, client, audio)


# ---------------------------------------------------------------------------------- a gateway stops


async def test_a_stopping_gateway_sends_its_clients_to_another(two: Stack) -> None:
    audio = spoken(7_200, digits=(12, 12))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    await client.connect(two.url("gateway"))
    await client.send(len(client.chunks) // 2)
    gateway = two.processes.pop("gateway")
    stopping = asyncio.create_task(asyncio.to_thread(gateway.terminate))
    assert await close_code(client.socket) == 1012
    assert await stopping == 0
    two.start("gateway")
    resumed = await client.connect(two.url("gateway2"))
    assert resumed["status"] == "session_resumed"
    await client.send()
    await client.finish()
    assert_stored_once(two, client, audio)
    await gateway_is_back(two)


async def test_the_next_gateway_stores_the_spooled_records(two: Stack) -> None:
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


# ----------------------------------------------------------------------------- persistence restarts


async def test_records_lost_without_persistence_are_sent_again_once_it_is_back(two: Stack) -> None:
    audio = spoken(7_300, digits=(8, 8))
    client = ResumingClient(chunks_of(audio, "raw", "", 16_000, 1, 100))
    port = two.ports["patient"] = free_port()
    settings = {**two.environment, "PORT": str(port), "METRICS_PORT": "0"}
    with LoggedProcess("tests.integration.patient_gateway", **settings):
        await asyncio.to_thread(wait_until, lambda: two.is_ready("patient", 1), "ready")
        two.processes.pop("persistence").kill()
        await client.connect(two.url("patient"))
        await client.send()
        final = await client.finish()
        assert not final["stored"]
        two.start("persistence")
        confirmed = "asr_gateway_outbox_records 0.0"
        await asyncio.to_thread(
            wait_until, lambda: confirmed in two.get("/metrics", "patient").body, "confirmed"
        )
    client.final["stored"] = True  # type: ignore[index]
    assert_stored_once(two, client, audio)


def _status(stack: Stack, client: ResumingClient) -> str:
    with psycopg.connect(stack.database_url) as connection:
        query = "SELECT status FROM asr_sessions WHERE id = %s"
        found = connection.execute(query, [client.session_id]).fetchone()
    assert found is not None
    return str(found[0])
