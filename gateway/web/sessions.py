"""Sessions over REST: the history, one session or its transcript as a file, and deletion."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Path, Query, Response
from fastapi.responses import JSONResponse

from gateway.dialects.fields import SESSION_ID_PATTERN
from gateway.dialects.subtitles import Segment, TimedText, to_srt, to_vtt
from gateway.server import Server
from gateway.session.core import Session
from gateway.session.resume import text_of
from gateway.session.transcript import join_texts
from gateway.web.schemas import (
    DeletedAnswer,
    HistoryAnswer,
    ProblemAnswer,
    SessionAnswer,
    segment_answer,
)
from persistence.reads import HISTORY_ROWS_MAX, StoreUnavailable

NOT_FOUND = {"code": "not_found", "message": "no such session"}

SessionId = Annotated[
    str, Path(pattern=f"^{SESSION_ID_PATTERN}$", description="The client's session id")
]
TranscriptFormat = Literal["json", "text", "srt", "vtt"]


def add_sessions(app: FastAPI, server: Server) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        404: {"model": ProblemAnswer},
        503: {"model": ProblemAnswer},
    }

    @app.get("/api/v1/history", response_model=HistoryAnswer, responses={503: problems[503]})
    async def history(
        limit: Annotated[int, Query(ge=1, le=HISTORY_ROWS_MAX)] = 50,
    ) -> dict[str, Any]:
        """The latest sessions, newest first."""
        total, records = await server.reader.history(limit)
        return {"total": total, "records": records}

    @app.get("/api/v1/session/{session_id}", response_model=SessionAnswer, responses=problems)
    async def session(session_id: SessionId, format: TranscriptFormat = "json") -> Any:
        """One session, running or stored, with its segments and chunks; or its transcript as text,
        SRT or WebVTT."""
        found = await find(session_id)
        if found is None:
            return JSONResponse(NOT_FOUND, 404)
        return found if format == "json" else transcript_response(found, format)

    async def find(session_id: str) -> dict[str, Any] | None:
        runner = server.sessions.get(session_id)
        try:
            stored = await server.reader.session(session_id)
        except StoreUnavailable:
            if runner is None:
                raise
            stored = None  # Of a running session only the details of chunks are missing.
        if runner is not None:
            return live_session(runner.session, stored)
        if stored is None:
            return None
        speakers = stored["speakers"]
        segments = [
            segment_answer(result, speakers.get(result.seq)) for result in stored["segments"]
        ]
        return {**stored, "text": text_of(stored), "segments": segments}

    @app.delete(
        "/api/v1/session/{session_id}",
        response_model=DeletedAnswer,
        responses={**problems, 202: {"model": DeletedAnswer}},
    )
    async def delete(session_id: SessionId, response: Response) -> Any:
        """Delete a session permanently. A late result does not restore it. 202: accepted, to be
        done when the database is available."""
        if not server.is_here(session_id):
            try:
                known = await server.reader.status(session_id) not in (None, "deleted")
            except StoreUnavailable:
                if server.storage_backlog_full:
                    raise  # The id may not exist, and each deletion is a record to be kept.
                known = True
            if not known:
                return JSONResponse(NOT_FOUND, 404)
        committed = await server.delete(session_id)
        if not committed:
            response.status_code = 202
        return {"session_id": session_id, "deleted": committed}


# ------------------------------------------------------------------------------- a session as JSON


def live_session(session: Session, stored: dict[str, Any] | None) -> dict[str, Any]:
    """Return the running ``session`` as a ``SessionAnswer``. The details of chunks come from
    ``stored``, because the gateway does not keep them."""
    delivered = session.delivery.results
    created_at = datetime.fromtimestamp(session.started_at_ms / 1000, UTC).isoformat()
    return {
        "session_id": session.session_id,
        "user_id": session.start.user_id if session.start is not None else "",
        "status": session.state.value,
        "model": session.start.model if session.start is not None else "",
        "text": session.text,
        "duration": session.duration_ms / 1000,
        "chunk_count": session.chunk_count,
        "segment_count": len(delivered),
        "created_at": created_at,
        "completed_at": None,
        "live": True,
        "segments": [
            segment_answer(result, session.delivery.speaker(result.seq)) for result in delivered
        ],
        "chunks": stored["chunks"] if stored is not None else [],
    }


# ----------------------------------------------------------------------------- a session as a file


def transcript_response(session: dict[str, Any], wanted: TranscriptFormat) -> Response:
    """Return the transcript of ``session`` (a ``SessionAnswer``) as a file, without segments that
    have no text."""
    segments = [_timed_segment(row) for row in session["segments"] if row["text"]]
    if wanted == "srt":
        return Response(to_srt(segments), media_type="application/x-subrip; charset=utf-8")
    if wanted == "vtt":
        return Response(to_vtt(segments), media_type="text/vtt; charset=utf-8")
    text = join_texts(segment.text for segment in segments)
    return Response(text + "\n", media_type="text/plain; charset=utf-8")


def _timed_segment(row: dict[str, Any]) -> Segment:
    return Segment(
        text=row["text"],
        start_ms=row["start_ms"],
        end_ms=row["end_ms"],
        words=tuple(
            TimedText(text=token["text"], start_ms=token["start_ms"], end_ms=token["end_ms"])
            for token in row["tokens"]
        ),
        speaker=row["speaker"],
    )
