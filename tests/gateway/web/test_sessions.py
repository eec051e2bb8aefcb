"""Sessions over REST while the database is away. The rest is tested in tests/integration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from urllib.parse import unquote

import pytest
from fastapi import Request, Response
from starlette.testclient import TestClient

from gateway.server import Server
from gateway.storage.callers import Caller
from gateway.web.app import create_app
from gateway.web.errors import RefusedError
from gateway.web.sessions import disposition_of, former_fields, transcript_response
from persistence.reads import StoreUnavailable
from tests.gateway.session_driver import SessionDriver, silence, speech
from tests.gateway.telemetry.test_activity import FAILED, result
from tests.gateway.web.endpoints import endpoint

ACME = Caller(tenant="acme", token_name="anna")


class NoDatabase:
    async def session(self, _session_id: str, _tenant: str, **_asked: object) -> None:
        raise StoreUnavailable("the database does not answer")

    status = session


def client(server: object) -> TestClient:
    return TestClient(create_app(cast(Server, server), {}))


def test_a_live_session_is_shown_without_the_database() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(silence(500))
    server = SimpleNamespace(reader=NoDatabase(), sessions={"s": driver})
    ask = client(server)
    answer = ask.get("/api/v1/session/s").json()
    assert answer["live"] and answer["duration"] == 0.5 and "chunks" not in answer
    assert ask.get("/api/v1/session/s?include=chunks").json()["chunks"] == []
    assert ask.get("/api/v1/session/other").status_code == 503


async def test_a_live_session_of_another_tenant_is_unknown() -> None:
    driver = SessionDriver()
    driver.start()
    server = SimpleNamespace(reader=NoDatabase(), sessions={"s": driver})
    ask = endpoint(server, "/api/v1/session/{session_id}")
    foreign = Request({"type": "http", "state": {"caller": ACME}})
    with pytest.raises(RefusedError, match="no such session"):
        await ask(foreign, "s", Response(), ())


def test_unknown_parameters_of_a_session_are_reported() -> None:
    driver = SessionDriver()
    driver.start()
    ask = client(SimpleNamespace(reader=NoDatabase(), sessions={"s": driver}))
    (warning,) = ask.get("/api/v1/session/s?fromat=srt").json()["warnings"]
    assert warning["code"] == "unknown_parameter" and "'fromat'" in warning["message"]
    file = ask.get("/api/v1/session/s?format=srt&chunks=1")
    assert "'chunks' has no effect" in file.headers["X-Warnings"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Nine two, five.", "2026-01-01 12-00 Nine two five"),
        ("今天天气很好", "2026-01-01 12-00 今天天气很好"),
        ('../etc/passwd\r\n";', "2026-01-01 12-00 etc passwd"),
        ("", "2026-01-01 12-00"),
    ],
)
def test_a_file_has_a_name_that_people_recognise(text: str, name: str) -> None:
    session = {"text": text, "created_at": "2026-01-01T12:00:59.000Z"}
    kind, ascii_name, unicode_name = disposition_of(session, "srt").split("; ")
    assert (kind, ascii_name) == ("attachment", 'filename="2026-01-01 12-00.srt"')
    assert unquote(unicode_name.removeprefix("filename*=UTF-8''")) == f"{name}.srt"
    assert disposition_of(session, "json").startswith("inline; ")


async def test_deletions_of_unknown_sessions_are_limited_without_the_database() -> None:
    deleted: list[str] = []

    async def delete(session_id: str, _tenant: str) -> bool:
        deleted.append(session_id)
        return False

    server = SimpleNamespace(
        reader=NoDatabase(),
        is_here=lambda session_id, _tenant: session_id == "ended here",
        delete=delete,
        storage_backlog_full=False,
    )
    ask = endpoint(server, "/api/v1/session/{session_id}", "DELETE")
    nobody = Request({"type": "http"})
    response = Response()
    answer = await ask(nobody, "one", response)
    assert (answer["session_id"], answer["deleted"]) == ("one", False)
    assert answer["message"] == "the session will be deleted"
    assert response.status_code == 202
    # It could be the session of another tenant.
    with pytest.raises(StoreUnavailable):
        await ask(Request({"type": "http", "state": {"caller": ACME}}), "one", Response())
    server.storage_backlog_full = True
    with pytest.raises(StoreUnavailable):
        await ask(nobody, "two", Response())
    await ask(nobody, "ended here", Response())
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


def test_a_live_session_shows_its_speakers() -> None:
    driver = SessionDriver()
    driver.start(speakers=True)
    driver.chunk(speech(1_500) + silence(1_000))
    driver.recognise(driver.jobs[0], "one", b"\0\0\x80?")
    server = SimpleNamespace(reader=NoDatabase(), sessions={"s": driver})
    answer = client(server).get("/api/v1/session/s").json()
    assert [segment["speaker"] for segment in answer["segments"]] == [1]


def test_former_texts_are_keyed_by_the_chunk_in_which_they_end() -> None:
    segments = [
        result(seq=0, last_chunk_index=0, text="one"),
        result(seq=1, last_chunk_index=2, text="two"),
        result(seq=2, last_chunk_index=2, text="three"),
        result(seq=3, last_chunk_index=3, **FAILED),
    ]
    assert former_fields("s", "one two three", segments) == {
        "id": "s",
        "final_text": "one two three",
        "results": {0: "one", 2: "two three", 3: ""},
        "completed": {0: True, 2: True, 3: True},
        "audio_path": None,
    }
