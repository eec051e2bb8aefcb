"""Limits of access tokens over two gateways, in every API, with real clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import redis
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from asr_client import ServerBusyError
from asr_client import connect as connect_client
from gateway.admission.token_uses import DAY_S
from gateway.dialects.registry import DIALECTS
from gateway.storage.callers import TokenLimits
from gateway.storage.redis_metadata import TOKEN_AUDIO_KEY
from gateway.web import auth_tokens
from gateway.web.auth_tokens import Access
from tests.gateway.web.test_auth import reported
from tests.integration.speech import chunks_of, say, spoken
from tests.integration.test_tenants import exchange
from tools.lab.encoded_audio import encode
from tools.lab.harness.stack import Stack, wait_until

LIMITS = {
    "two": TokenLimits(sessions=2),
    "five": TokenLimits(audio_s_per_day=5),
    "bulk": TokenLimits(audio_s_per_day=5),
    "slow": TokenLimits(requests_per_s=2),
    "free": TokenLimits(),
}
GATEWAYS = ("gateway6", "gateway7")
CHUNK_MS = 100


@dataclass(frozen=True)
class Limited:
    """Two gateways of one system, with a token for each of ``LIMITS``."""

    stack: Stack
    tokens: dict[str, str]

    def headers(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def ask(self, who: str, path: str, gateway: int = 0, **more: Any) -> httpx2.Response:
        url = self.stack.http_url(GATEWAYS[gateway]) + path
        method = "POST" if more else "GET"
        headers = self.headers(who)
        return httpx2.request(method, url, headers=headers, trust_env=False, timeout=60, **more)

    def refusal(self, who: str, path: str, **more: Any) -> httpx2.Response:
        """The refusal of a request; see ``refused``."""
        answers: list[httpx2.Response] = []

        def is_refused() -> bool:
            answers[:] = [self.ask(who, path, **more)]
            return answers[0].status_code == 429

        wait_until(is_refused, f"{who} is refused")
        return answers[0]

    def published_s(self, who: str) -> float:
        """Seconds of today's audio that gateways have published."""
        key = TOKEN_AUDIO_KEY.format(who, int(time.time()) // DAY_S)
        with redis.Redis.from_url(self.stack.environment["REDIS_URL"]) as client:
            return sum(float(each) for each in client.hvals(key))

    def _connect(self, who: str, gateway: int, path: str) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.stack.ports[GATEWAYS[gateway]]}{path}"
        return connect(url, additional_headers=self.headers(who), proxy=None)

    def open(self, who: str, gateway: int = 0, path: str = "/ws/asr") -> ClientConnection:
        """A connection, once those of the test before are gone, and a broker and a worker there."""
        opened: list[ClientConnection] = []

        def is_open() -> bool:
            with contextlib.suppress(InvalidStatus):
                opened.append(self._connect(who, gateway, path))
            return bool(opened)

        wait_until(is_open, f"{who} is admitted")
        return opened[0]

    def refused(self, who: str, path: str, gateway: int = 0) -> tuple[int, str, int]:
        """Status, code and Retry-After of a refused upgrade. Without an answer of Redis in time a
        gateway knows nothing of the other one, and may admit the client for a moment."""
        found: list[InvalidStatus] = []

        def is_refused() -> bool:
            try:
                with self._connect(who, gateway, path):
                    return False
            except InvalidStatus as error:
                found[:] = [error]
                return error.response.status_code != 503

        wait_until(is_refused, f"{who} is refused")
        response = found[0].response
        code, _ = reported(json.loads(response.body or b""))
        return response.status_code, code, int(response.headers["Retry-After"])


@pytest.fixture(scope="module")
def limited(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    file = tmp_path_factory.mktemp("limits") / "tokens"
    tokens = {who: auth_tokens.new_token() for who in LIMITS}
    allowed = {
        who: Access(digest=auth_tokens.hash_of(tokens[who]), limits=limits)
        for who, limits in LIMITS.items()
    }
    auth_tokens.write(file, allowed)
    processes = [stack.start(name, AUTH_TOKENS_FILE=str(file)) for name in GATEWAYS]
    wait_until(
        lambda: all(stack.get("/readyz", name).status == 200 for name in GATEWAYS), "both ready"
    )
    yield Limited(stack, tokens)
    for name, process in zip(GATEWAYS, processes, strict=True):
        del stack.processes[name]
        assert process.terminate() == 0


def test_sessions_of_both_gateways_count_in_every_dialect(limited: Limited) -> None:
    with limited.open("two", 0), limited.open("two", 1):
        for path in DIALECTS:
            for gateway in range(2):
                assert limited.refused("two", path, gateway) == (429, "too_many_sessions", 5)
        assert limited.refusal("two", "/api/v1/admission").json()["retry_after_s"] == 5
        with limited.open("free"):
            pass
        pcm = encode(spoken(7_201).pcm, "wav", 16_000, 1)
        for path, more in (
            ("/v1/listen", {"content": pcm}),
            (
                "/v1/audio/transcriptions",
                {"files": {"file": ("a.wav", pcm)}, "data": {"model": "whisper-1"}},
            ),
        ):
            answer = limited.refusal("two", path, **more)
            assert answer.headers["Retry-After"] == "5"
            assert reported(answer.json())[0] == "too_many_sessions"
    wait_until(lambda: limited.ask("two", "/api/v1/admission").status_code == 200, "both have left")


async def test_the_client_reports_that_the_server_is_busy(limited: Limited) -> None:
    url, token = limited.stack.url(GATEWAYS[0]), limited.tokens["two"]
    with limited.open("two", 0), limited.open("two", 1):
        await asyncio.to_thread(limited.refusal, "two", "/api/v1/admission")
        with pytest.raises(ServerBusyError, match="2 sessions at a time") as caught:
            async with connect_client(url, token=token):
                pass
        assert (caught.value.status, caught.value.retry_after_s) == (429, 5)


def test_a_session_is_resumed_although_its_lost_connection_still_counts(limited: Limited) -> None:
    with limited.open("two", 0) as lost, limited.open("two", 1):
        ack = exchange(lost, {"action": "start", "session_id": "limits-lost"})
        with limited.open("two", 0, "/ws/asr?resume=limits-lost") as again:
            answer = exchange(again, {"action": "start", "session_id": "limits-another"})
            assert (answer["type"], answer["code"]) == ("error", "too_many_sessions")
        with limited.open("two", 0, "/ws/asr?resume=limits-lost") as again:
            start = {"action": "start", "session_id": "limits-lost"}
            answer = exchange(again, {**start, "resume_token": ack["resume_token"]})
            assert answer["status"] == "session_resumed"
            assert exchange(again, {"action": "finish", "session_id": "limits-lost"})["text"] == ""


def test_requests_of_both_gateways_count(limited: Limited) -> None:
    def crowd() -> list[httpx2.Response]:
        return [limited.ask("slow", "/v1/models", number % 2) for number in range(6)]

    answers: list[httpx2.Response] = []

    def some_are_refused() -> bool:
        answers[:] = [answer for answer in crowd() if answer.status_code != 200]
        return bool(answers)

    wait_until(some_are_refused, "six requests within a second")
    for answer in answers:
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
        assert reported(answer.json())[0] == "too_many_requests"


async def test_a_session_over_its_audio_ends_with_an_error_and_its_text(limited: Limited) -> None:
    """Half of the audio goes to one gateway and half to the other."""
    first, second = spoken(7_202, digits=(5, 5)), spoken(7_203, digits=(12, 12))
    assert len(first.pcm) < 4.5 * 16_000 < 5 * 16_000 < len(second.pcm)
    url, token = limited.stack.url(GATEWAYS[0]), limited.tokens["five"]
    await say(url, first, token=token)
    first_s = len(first.pcm) / 16_000
    wait_until(lambda: limited.published_s("five") == pytest.approx(first_s, abs=1e-3), "published")
    chunks = chunks_of(second, "raw", "", 0, 0, CHUNK_MS)
    answers = await asyncio.to_thread(_speak_on, limited, chunks)
    (error,) = [each for each in answers if each.get("code") == "audio_limit_reached"]
    assert "5 s of audio a day" in error["message"]
    (final,) = [each for each in answers if each["type"] == "final_result"]
    # The chunk that reaches the limit is still recognised. Published sums have milliseconds.
    assert -1e-3 <= final["duration"] - (5.0 - first_s) <= CHUNK_MS / 1000 + 1e-3
    if final["text"]:
        assert second.text.startswith(final["text"].split()[0])
    shown = limited.ask("five", f"/api/v1/session/{final['session_id']}").json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "audio_limit_reached")
    # The other gateway publishes what was sent to it once a second.
    wait_until(
        lambda: limited.ask("five", "/api/v1/admission").status_code == 429, "the first knows it"
    )
    for path in DIALECTS:
        status, code, retry_after_s = limited.refused("five", path)
        assert (status, code) == (429, "audio_limit_reached")
        assert 0 < retry_after_s <= 86_400
    submitted = limited.ask("five", "/api/v1/asr/submit", files={"audio": ("a.wav", b"RIFF")})
    assert (submitted.status_code, submitted.json()["code"]) == (429, "audio_limit_reached")


def _speak_on(limited: Limited, chunks: list[bytes]) -> list[dict[str, Any]]:
    """The messages until the final result, of a client that never ends by itself."""
    answers: list[dict[str, Any]] = []
    with limited.open("five", 1) as socket:
        start = {"action": "start", "session_id": "limits-audio", "mode": "stream"}
        exchange(socket, start)
        for chunk in chunks:
            socket.send(chunk)
            answers += _received(socket, 0.05)
        # Chunks behind the limit are answered with errors, which may follow the final result.
        while not any(each["type"] == "final_result" for each in answers):
            answers += _received(socket, 60.0)
        return answers


def _received(socket: ClientConnection, wait_s: float) -> list[dict[str, Any]]:
    try:
        return [json.loads(socket.recv(timeout=wait_s))]
    except TimeoutError:
        return []


def test_an_upload_over_the_audio_is_refused_in_the_form_of_the_api(limited: Limited) -> None:
    file = encode(spoken(7_204, digits=(14, 14)).pcm, "wav", 16_000, 1)
    files = {"file": ("a.wav", file * 4)}
    answer = limited.ask(
        "bulk", "/v1/audio/transcriptions", files=files, data={"model": "whisper-1"}
    )
    assert answer.status_code == 429, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["type"]) == ("audio_limit_reached", "rate_limit_error")
