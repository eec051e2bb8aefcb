"""The core of a session, without a connection."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from asr_client import events, exceptions
from asr_client import protocol as p


def encoded(**fields: Any) -> str:
    return json.dumps(fields)


def started(next_chunk_index: int = 0, *, resumed: bool = False, token: str = "t") -> str:
    return encoded(
        type="ack",
        status="session_resumed" if resumed else "session_started",
        session_id="s",
        resume_token=token,
        next_chunk_index=next_chunk_index,
    )


def segment(index: int) -> str:
    return encoded(
        type="chunk_result", segment_index=index, chunk_index=0, start_ms=0, end_ms=1, text="one"
    )


def session_of(*chunks: bytes, binary: bool = True, bytes_max: int = 1_000) -> p.ClientProtocol:
    log = p.ReplayBuffer(bytes_max)
    for chunk in chunks:
        log.append(chunk)
    return p.ClientProtocol(p.start_fields("s"), log, binary=binary)


def messages(session: p.ClientProtocol) -> list[str | bytes]:
    found = []
    while (message := session.next_message()) is not None:
        found.append(message)
    return found


FINISH = '{"action": "finish", "session_id": "s"}'


def test_nothing_is_sent_before_the_session_is_started() -> None:
    session = session_of(b"ab")
    assert messages(session) == []
    session.receive(started())
    assert messages(session) == [b"ab"]


def test_finish_follows_the_last_chunk_once() -> None:
    session = session_of(b"ab", b"cd")
    session.finish()
    session.receive(started())
    assert messages(session) == [b"ab", b"cd", FINISH]
    assert messages(session) == []


def test_chunks_as_json() -> None:
    session = session_of(b"ab", binary=False)
    session.receive(started())
    (message,) = messages(session)
    fields = json.loads(message)
    assert base64.b64decode(fields.pop("audio_data")) == b"ab"
    assert fields == {"action": "chunk", "session_id": "s", "chunk_index": 0}


def test_a_resumed_session_continues_at_the_chunk_that_the_server_expects() -> None:
    session = session_of(b"ab", b"cd", b"ef")
    session.finish()
    session.receive(started(token="first"))
    messages(session)
    session.receive(segment(0))
    session.connection_lost()
    assert messages(session) == []
    asked = json.loads(session.start_message())
    assert (asked["resume_token"], asked["next_segment_index"]) == ("first", 1)
    session.receive(started(2, resumed=True, token="second"))
    assert session.acknowledged_chunks == 2
    assert messages(session) == [b"ef", FINISH]
    assert json.loads(session.start_message())["resume_token"] == "second"


def test_a_resumed_session_is_named_in_the_url() -> None:
    session = session_of(b"a")
    assert session.url("ws://h/ws/asr") == "ws://h/ws/asr"
    session.receive(started())
    session.connection_lost()
    assert session.url("ws://h/ws/asr") == "ws://h/ws/asr?resume=s"
    assert session.url("ws://h/ws/asr?a=b") == "ws://h/ws/asr?a=b&resume=s"


def test_a_dropped_chunk_cannot_be_sent_again() -> None:
    session = session_of(b"ab", b"cd", b"ef", bytes_max=4)
    session.receive(started(1))
    assert messages(session) == [b"cd", b"ef"]
    session.connection_lost()
    session.receive(started(0, resumed=True))
    with pytest.raises(exceptions.SessionLostError, match="from chunk 0 on"):
        session.next_message()


def test_a_repeated_segment_is_dropped_and_counted() -> None:
    session = session_of()
    session.receive(started())
    assert session.receive(segment(0)) is not None
    assert session.receive(segment(0)) is None
    assert (session.received_segments, session.repeated_segments) == (1, 1)


def test_a_session_that_started_again_may_repeat_its_segments() -> None:
    session = session_of()
    session.receive(started())
    session.receive(segment(0))
    session.connection_lost()
    session.receive(started())
    assert session.receive(segment(0)) is None
    assert session.receive(segment(1)) is not None
    assert session.repeated_segments == 0


def test_a_missing_segment_is_an_error() -> None:
    session = session_of()
    session.receive(started())
    with pytest.raises(exceptions.SessionError, match="segment 0 is missing"):
        session.receive(segment(1))


def test_an_error_takes_the_place_of_its_segment() -> None:
    session = session_of()
    session.receive(started())
    problem = encoded(type="error", code="chunk_failed", message="", segment_index=0)
    assert session.receive(problem) == events.Problem("chunk_failed", "", None, 0, None)
    assert session.receive(segment(1)) is not None


def test_acknowledgements_never_exceed_the_chunks_sent() -> None:
    session = session_of(b"ab", b"cd")
    session.receive(started())
    messages(session)
    session.receive(encoded(type="ack", status="received", chunk_index=7))
    assert session.acknowledged_chunks == 2
    assert session.unacknowledged_chunks == 0


def test_the_replay_buffer_drops_the_oldest_but_never_the_newest() -> None:
    log = p.ReplayBuffer(bytes_max=3)
    for audio in (b"aa", b"bb", b"cccc"):
        log.append(audio)
    assert len(log) == 3
    assert log[2] == b"cccc"
    for dropped in (0, 1, 3):
        with pytest.raises(LookupError):
            log[dropped]
