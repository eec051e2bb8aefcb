from __future__ import annotations

from typing import Any

import pytest

from gateway.session import events as e
from gateway.session import traces
from runtime import tracing
from tests.gateway.session.test_session_jobs import job, result
from wire.messages import Failure, StoredKey


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, dict[str, Any]]]:
    found: list[tuple[str, int, dict[str, Any]]] = []

    def record(name: str, _session_id: str, seq: int, **fields: Any) -> None:
        found.append((name, seq, fields))

    monkeypatch.setattr(tracing, "record", record)
    return found


def stored(seq: int) -> e.KeysStored:
    return e.KeysStored(keys=(StoredKey(session_id="s", kind="result", seq=seq),))


def test_from_the_chunk_to_the_row(recorded: list[tuple[str, int, dict[str, Any]]]) -> None:
    of = traces.SessionTraces("live")
    of.note_event(e.Chunk(session_id=None, chunk_index=None, data=b""), 5.0)
    of.note_action(job(0))
    of.note_action(job(0))
    failure = Failure(code="deadline", message="")
    of.note_action(e.KeepResult(result=result(job(0), None, error=failure)))
    of.note_event(stored(0), 9.0)
    of.note_event(stored(0), 10.0)
    of.note_event(stored(1), 10.0)
    segment, utterance = recorded
    assert segment[:2] == ("segment", 0) and segment[2]["start_s"] == 5.0
    assert utterance[:2] == (tracing.ROOT, 0)
    assert utterance[2] == {"start_s": 5.0, "end_s": 9.0, "error": "deadline", "lane": "live"}


def test_utterances_beyond_the_limit_have_no_first_span(
    recorded: list[tuple[str, int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "UTTERANCES_MAX", 2)
    of = traces.SessionTraces("bulk")
    for seq in range(3):
        of.note_action(job(seq))
    assert [seq for _, seq, _ in recorded] == [0, 1]
