"""What a session answers, built from what it knows."""

from __future__ import annotations

from gateway.session import events as e
from gateway.session.states import State
from wire.messages import Result


def segment_answer(session_id: str, result: Result) -> e.Answer:
    if result.error is not None:
        return e.Problem(
            code=result.error.code,
            message=result.error.message,
            chunk_index=result.last_chunk_index,
            segment_index=result.seq,
        )
    return e.SegmentText(
        session_id=session_id,
        chunk_index=result.last_chunk_index,
        segment_index=result.seq,
        start_ms=result.start_ms,
        end_ms=result.end_ms,
        text=result.text or "",
        tokens=result.tokens,
    )


def out_of_turn(event: e.Event, state: State) -> e.Problem:
    name = type(event).__name__.lower()
    index = event.chunk_index if isinstance(event, e.Chunk) else None
    message = f"{name} is not possible now: the session is {state.value}"
    return e.Problem(code="bad_state", message=message, chunk_index=index)


def wrong_session(chunk_index: int | None) -> e.Problem:
    message = "session_id is not this connection's session"
    return e.Problem(code="bad_message", message=message, chunk_index=chunk_index)


def misplaced_chunk(verdict: str, index: int, expected: int) -> e.Problem:
    if verdict == "gap":
        message = f"chunk {index} came, chunk {expected} is expected"
        return e.Problem(
            code="expected_seq", message=message, chunk_index=index, expected_chunk_index=expected
        )
    message = f"chunk {index} came before with other bytes"
    return e.Problem(code="seq_conflict", message=message, chunk_index=index)
