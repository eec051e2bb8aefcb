"""Sessions over REST while the database is away. The rest is tested in tests/integration."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fastapi import Response

from gateway.web.sessions import transcript_response
from persistence.reads import StoreUnavailable
from tests.gateway.session_driver import SessionDriver, silence, speech
from tests.gateway.web.endpoints import endpoint


class NoDatabase:
    async def session(self, _session_id: str) -> None:
        raise StoreUnavailable("the database does not answer")

    status = session


async def test_a_live_session_is_shown_without_the_database() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(silence(500))
    server = SimpleNamespace(reader=NoDatabase(), sessions={"s": driver})
    show = endpoint(server, "/api/v1/session/{session_id}")
    answer = await show(session_id="s")
    assert answer["live"] and answer["duration"] == 0.5 and answer["chunks"] == []
    with pytest.raises(StoreUnavailable):
        await show(session_id="other")


async def test_deletions_of_unknown_sessions_are_limited_without_the_database() -> None:
    deleted: list[str] = []

    async def delete(session_id: str) -> bool:
        deleted.append(session_id)
        return False

    server = SimpleNamespace(
        reader=NoDatabase(),
        is_here=lambda session_id: session_id == "ended here",
        delete=delete,
        storage_backlog_full=False,
    )
    ask = endpoint(server, "/api/v1/session/{session_id}", "DELETE")
    response = Response()
    assert await ask("one", response) == {"session_id": "one", "deleted": False}
    assert response.status_code == 202
    server.storage_backlog_full = True
    with pytest.raises(StoreUnavailable):
        await ask("two", Response())
    await ask("ended here", Response())
    assert deleted == ["one", "ended here"]


def test_a_transcript_as_a_file_has_no_segments_without_a_text() -> None:
    row = {"text": "one", "start_ms": 0, "end_ms": 900, "tokens": [], "speaker": None}
    failed = {**row, "text": None}
    session = {"segments": [row, failed, {**row, "start_ms": 1_000, "end_ms": 1_900}]}
    text = transcript_response(session, "text")
    assert (bytes(text.body), text.media_type) == (b"one one\n", "text/plain; charset=utf-8")
    srt = bytes(transcript_response(session, "srt").body)
    assert srt.count(b"-->") == 2 and b"00:00:01,000 --> 00:00:01,900" in srt
    assert bytes(transcript_response(session, "vtt").body).startswith(b"WEBVTT\n")


def test_a_transcript_as_a_file_names_speakers() -> None:
    row = {"text": "one", "start_ms": 0, "end_ms": 900, "tokens": [], "speaker": 2}
    session = {"segments": [row]}
    assert b"Speaker 2: one" in bytes(transcript_response(session, "srt").body)
    assert b"<v Speaker 2>one" in bytes(transcript_response(session, "vtt").body)


async def test_a_live_session_shows_its_speakers() -> None:
    driver = SessionDriver()
    driver.start(speakers=True)
    driver.chunk(speech(1_500) + silence(1_000))
    driver.recognise(driver.jobs[0], "one", b"\0\0\x80?")
    server = SimpleNamespace(reader=NoDatabase(), sessions={"s": driver})
    answer = await endpoint(server, "/api/v1/session/{session_id}")(session_id="s")
    assert [segment["speaker"] for segment in answer["segments"]] == [1]
