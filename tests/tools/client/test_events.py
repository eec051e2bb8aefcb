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
        (
            '{"type":"chunk_result","segment_index":1,"chunk_index":2,"start_ms":3,"end_ms":4,'
            '"text":"one","speaker":2}',
            events.Segment(1, 2, 3, 4, "one", speaker=2),
        ),
        (
            '{"type":"final_result","text":"one","duration":1.5,"chunk_count":2,"stored":true,'
            '"speakers":[1,null],"warnings":[{"code":"loudest_only","message":"n"}]}',
            events.FinalResult("one", 1.5, 2, True, speakers=(1, None), warnings=("n",)),
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
