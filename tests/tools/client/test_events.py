"""Parsing of the server's messages."""

from __future__ import annotations

import pytest

from asr_client import events
from asr_client.exceptions import SessionError


@pytest.mark.parametrize(
    "message, event",
    [
        (
            '{"type":"ack","status":"session_resumed","session_id":"s","resume_token":"t",'
            '"next_chunk_index":3,"next_segment_index":1}',
            events.Started("s", "t", 3, resumed=True),
        ),
        ('{"type":"ack","status":"received","chunk_index":4}', events.Acknowledged(4)),
        (
            '{"type":"partial_result","segment_index":0,"text":"on","new_field":1}',
            events.PartialResult(0, "on"),
        ),
        (
            '{"type":"error","code":"expected_seq","message":"","expected_chunk_index":2}',
            events.Problem("expected_seq", "", None, None, 2),
        ),
    ],
)
def test_messages_become_events(message: str, event: events.Event) -> None:
    assert events.parse_event(message) == event


@pytest.mark.parametrize(
    "message", ["", "[]", "{}", '{"type":"news"}', '{"type":"ack","status":"received"}', "[" * 9999]
)
def test_invalid_messages_are_rejected(message: str) -> None:
    with pytest.raises(SessionError):
        events.parse_event(message)
