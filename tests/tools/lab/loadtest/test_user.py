"""One user against a scripted gateway; its checks must fail for each violation."""

from __future__ import annotations

import math
import socket
from http import HTTPStatus

import pytest

from tests.tools.lab.loadtest.scripted import (
    CHUNK_MS,
    SPEECH_MS,
    Gateway,
    one_session,
    serving,
    speech,
)
from tools.lab.loadtest import user


async def test_a_right_text_is_a_success() -> None:
    gateway = Gateway([speech().text])
    async with serving(gateway) as url:
        outcome = await one_session(url)
    assert (outcome.status, outcome.reason) == ("succeeded", "")
    assert outcome.stored and outcome.final_ms is not None
    assert len(outcome.segment_ms) == 1
    assert (outcome.partials, outcome.first_partial_ms) == (0, math.inf)
    assert len(outcome.ack_ms) == SPEECH_MS // CHUNK_MS
    whole = b"".join(speech().chunk(index) for index in range(speech().chunk_count))
    assert b"".join(gateway.audio) == whole
    assert gateway.starts[0]["mode"] == "auto" and gateway.starts[0]["partials"] is False


async def test_the_first_partial_result_is_timed() -> None:
    async with serving(Gateway([speech().text])) as url:
        outcome = await one_session(url, partials=True)
    assert outcome.partials == SPEECH_MS // CHUNK_MS
    assert 0 < outcome.first_partial_ms < math.inf


@pytest.mark.parametrize(
    "change",
    [
        lambda words: words[:-1],
        lambda words: [*words, "one"],
        lambda words: [*words[1:], words[0]],
        lambda words: ["nought", *words[1:]],
        lambda _words: [],
    ],
    ids=["missing", "added", "reordered", "misheard", "nothing"],
)
async def test_any_other_text_is_a_failure(change: object) -> None:
    assert callable(change)
    text = " ".join(change(speech().text.split()))
    async with serving(Gateway([text])) as url:
        outcome = await one_session(url)
    assert outcome.status == "wrong_text"
    assert (outcome.expected, outcome.text) == (speech().text, text)


async def test_a_segment_sent_twice_is_a_failure_although_the_text_is_right() -> None:
    gateway = Gateway([speech().text] * 2, segment_indices=[0, 0])
    async with serving(gateway) as url:
        outcome = await one_session(url)
    assert (outcome.status, outcome.reason) == ("failed", "1 segments were sent twice")


async def test_segments_that_differ_are_a_failure_although_the_final_text_is_right() -> None:
    words = speech().text.split()
    gateway = Gateway([*words[1:], words[0]], final_text=speech().text)
    async with serving(gateway) as url:
        outcome = await one_session(url)
    assert outcome.status == "wrong_text"
    assert outcome.text == speech().text and outcome.reason.startswith("the segments' texts differ")


async def test_a_missing_segment_is_a_failure() -> None:
    gateway = Gateway([speech().text], segment_indices=[1])
    async with serving(gateway) as url:
        outcome = await one_session(url)
    assert (outcome.status, outcome.reason) == ("failed", "segment 0 is missing")


async def test_no_final_result_is_a_failure() -> None:
    async with serving(Gateway([], silent=True)) as url:
        outcome = await one_session(url, final_timeout_s=0.3)
    assert (outcome.status, outcome.reason) == ("failed", "no final result in time")


async def test_a_refused_user_retries_without_a_failure() -> None:
    gateway = Gateway([speech().text], refusals=2)
    async with serving(gateway) as url:
        outcome = await one_session(url)
    assert (outcome.status, outcome.refusals) == ("succeeded", 2)
    assert len(outcome.refused_after_ms) == 2
    # It counts as admitted only after the refusals.
    assert outcome.came_in_s is not None
    refused_s = sum(outcome.refused_after_ms) / 1000
    assert outcome.began_s + refused_s < outcome.came_in_s < outcome.ended_s
    assert outcome.spoken_in_s == outcome.audio_s / 50


async def test_a_user_retries_for_a_limited_time() -> None:
    async with serving(Gateway([], refusals=99)) as url:
        outcome = await one_session(url, patience_s=0.1)
    assert (outcome.status, outcome.reason) == ("refused", "HTTP 503")
    assert outcome.came_in_s is None


async def test_another_refusal_is_a_failure() -> None:
    gateway = Gateway([], refusals=99, refusal_status=HTTPStatus.FORBIDDEN)
    async with serving(gateway) as url:
        outcome = await one_session(url)
    assert (outcome.status, outcome.reason, gateway.upgrades) == ("failed", "HTTP 403", 1)


async def test_without_a_server_the_session_fails(unused_tcp_port: int) -> None:
    outcome = await one_session(f"ws://127.0.0.1:{unused_tcp_port}/ws/asr", patience_s=0.1)
    assert outcome.status == "failed" and "not connected" in outcome.reason


async def test_a_server_that_does_not_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user, "START_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        outcome = await one_session(f"ws://127.0.0.1:{port}/ws/asr", patience_s=0.1)
    assert (outcome.status, outcome.came_in_s) == ("failed", None)
    assert outcome.reason == "the server did not start the session in time"


async def test_a_lost_connection_is_resumed() -> None:
    gateway = Gateway([speech().text], cut_after_chunks=7)
    async with serving(gateway) as url:
        outcome = await one_session(url)
    assert (outcome.status, outcome.resumes) == ("succeeded", 1)
    assert gateway.starts[1]["resume_token"] == "token"
    whole = b"".join(speech().chunk(index) for index in range(speech().chunk_count))
    assert b"".join(gateway.audio) == whole


async def test_without_resuming_a_lost_connection_is_a_failure() -> None:
    async with serving(Gateway([speech().text], cut_after_chunks=7)) as url:
        outcome = await one_session(url, resume=False)
    assert (outcome.status, outcome.reason) == ("failed", "connection lost (code 1012)")


async def test_a_connection_closed_permanently_by_the_server_is_a_failure() -> None:
    async with serving(Gateway([speech().text], cut_after_chunks=7, close_code=1008)) as url:
        outcome = await one_session(url)
    assert (outcome.status, outcome.reason) == ("failed", "connection lost (code 1008)")
