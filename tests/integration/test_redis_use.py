"""Redis holds session metadata and counters only, and sessions continue without it."""

from __future__ import annotations

import asyncio
import re
import threading

import redis

from tests.conftest import EmbeddedServices
from tests.integration.speech import say, spoken
from tools.lab.harness.stack import Stack, wait_until

DOCUMENTED_KEYS = re.compile(
    r"asr:session:[A-Za-z0-9._:-]+|asr:queue(?:s|:[0-9a-f]+)?|asr:gateways"
    r"|asr:processes|asr:process:[a-z0-9-]+"
    r"|asr:token:[A-Za-z0-9._-]+:(sessions|audio:\d+|requests:\d+)"
)
COMMANDS = {"HSET", "HGET", "HGETALL", "HDEL", "EXPIRE", "EXISTS", "DEL", "PING"}
COMMANDS |= {"SET", "MGET", "SADD", "SREM", "SMEMBERS"}
HANDSHAKE = {"HELLO", "CLIENT", "AUTH", "SELECT", "INFO"}


async def test_only_the_documented_keys_and_no_messaging(
    stack: Stack, embedded_services: EmbeddedServices
) -> None:
    client = redis.Redis.from_url(embedded_services.redis_url)
    seen: list[str] = []
    stopped = threading.Event()
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]

        def watch() -> None:
            for command in monitor.listen():
                seen.append(command["command"])
                if "the end" in command["command"]:
                    stopped.set()
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        await say(stack.url(), spoken(4_000))
        # The broker writes its counters once a second.
        written = ("asr:queue ", "asr:gateways ", "asr:session:")
        await asyncio.to_thread(
            wait_until,
            lambda: all(any(key in f"{line} " for line in list(seen)) for key in written),
            "a key of each kind",
        )
        with redis.Redis.from_url(embedded_services.redis_url) as other:
            other.echo("the end")
        assert await asyncio.to_thread(stopped.wait, 60)
        watcher.join()
    client.close()
    used = [line.split() for line in seen if line.split()[0].upper() not in HANDSHAKE | {"ECHO"}]
    assert {words[0].upper() for words in used} <= COMMANDS
    keys = {words[1] for words in used if len(words) > 1}
    assert all(DOCUMENTED_KEYS.fullmatch(key) for key in keys), keys
    assert {"asr:queue", "asr:gateways"} <= keys
    assert any(key.startswith("asr:session:") for key in keys)


async def test_a_session_hash_has_metadata_and_a_ttl(
    stack: Stack, embedded_services: EmbeddedServices
) -> None:
    audio = spoken(4_001)
    session_id, _ = await say(stack.url(), audio)
    with redis.Redis.from_url(embedded_services.redis_url, decode_responses=True) as client:
        key = f"asr:session:{session_id}"
        await asyncio.to_thread(wait_until, lambda: client.exists(key) == 1, "the session's hash")
        fields = client.hgetall(key)
        assert fields["mode"] == "auto"
        assert audio.text not in " ".join(fields.values())
        assert 0 < client.ttl(key) <= 86_400
        assert client.type("asr:queue") == "hash"
        assert client.type("asr:gateways") == "hash"


async def test_without_redis_sessions_continue(stack: Stack) -> None:
    gone = "redis://127.0.0.1:1/0"
    with stack.start("gateway8", REDIS_URL=gone, MAX_CONNECTIONS="10") as process:
        stack.wait_ready("gateway8")
        _, final = await say(stack.url("gateway8"), spoken(4_002))
        assert final.stored

        def is_degraded() -> bool:
            health = stack.get("/api/v1/health", "gateway8")
            return bool(
                health.status == 200
                and health.body["status"] == "degraded"
                and not health.body["redis_ready"]
            )

        await asyncio.to_thread(wait_until, is_degraded, "a gateway without Redis only")
    assert process.wait() == 0
    del stack.processes["gateway8"]
