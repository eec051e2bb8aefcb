"""Sessions over REST: one session or its transcript as a file, and deletion."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Path, Query, Request, Response
from msgspec import to_builtins

from gateway.dialects.fields import SESSION_ID_PATTERN
from gateway.dialects.openai import warnings_header
from gateway.dialects.subtitles import Segment, to_srt, to_vtt
from gateway.server import Server
from gateway.session.core import Session
from gateway.session.resume import text_of
from gateway.session.transcript import join_texts
from gateway.web.caller import caller_of, has_token
from gateway.web.description import SESSIONS
from gateway.web.errors import RefusedError
from gateway.web.parameters import WARNS_OF_UNKNOWN, Warnings
from gateway.web.schemas import DeletedAnswer, ProblemAnswer, SessionAnswer, segment_answer
from persistence.reads import StoreUnavailable
from wire.messages import Result, Token

NOT_FOUND = "no such session"
PROBLEMS: dict[int | str, dict[str, Any]] = {
    404: {"model": ProblemAnswer},
    503: {"model": ProblemAnswer},
}
"""Error answers to a request for one session, for the OpenAPI description."""
NAME_CHARS_MAX = 40
"""Characters of a transcript in the name of its file."""

SessionId = Annotated[
    str, Path(pattern=f"^{SESSION_ID_PATTERN}$", description="The client's session id")
]
TranscriptFormat = Literal["json", "text", "srt", "vtt"]


def add_sessions(app: FastAPI, server: Server) -> None:
    @app.get(
        "/api/v1/session/{session_id}",
        tags=[SESSIONS],
        response_model=SessionAnswer,
        response_model_exclude_unset=True,
        responses=PROBLEMS,
    )
    async def session(
        request: Request,
        session_id: SessionId,
        response: Response,
        warnings: Warnings,
        format: Annotated[TranscriptFormat, Query(description="Other than json: a file")] = "json",
        include: Annotated[
            list[Literal["chunks"]] | None,
            Query(description="`chunks`: each chunk of audio received"),
        ] = None,
    ) -> Any:
        """One session, running or stored, with its segments; or its transcript as text, SRT or
        WebVTT."""
        chunks = "chunks" in (include or ())
        found = await _find(server, session_id, caller_of(request).tenant, chunks=chunks)
        headers = {"Content-Disposition": disposition_of(found, format)}
        if format == "json":
            response.headers.update(headers)
            return {**found, "warnings": to_builtins(warnings)}
        file = transcript_response(found, format)
        file.headers.update(headers | warnings_header(warnings))
        return file

    @app.delete(
        "/api/v1/session/{session_id}",
        tags=[SESSIONS],
        response_model=DeletedAnswer,
        responses={**PROBLEMS, 202: {"model": DeletedAnswer}},
        dependencies=[WARNS_OF_UNKNOWN],
    )
    async def delete(request: Request, session_id: SessionId, response: Response) -> Any:
        """Delete a session permanently. A late result does not restore it. 202: accepted, to be
        done when the database is available."""
        committed = await delete_session(server, request, session_id)
        return {"session_id": session_id, **deleted_body(response, committed)}


def deleted_body(response: Response, committed: bool) -> dict[str, Any]:
    """Return the answer to a deletion, but for the id, and set its status."""
    response.status_code = 200 if committed else 202
    message = "the session is deleted" if committed else "the session will be deleted"
    return {"deleted": committed, "message": message}


async def delete_session(server: Server, request: Request, session_id: str) -> bool:
    """Delete a session of the request's tenant, and return whether that is committed.

    Raises:
        RefusedError: there is no such session.
        StoreUnavailable: if it is not known whether there is one, and no room to note it.
    """
    tenant = caller_of(request).tenant
    if not server.is_here(session_id, tenant):
        try:
            known = await server.reader.status(session_id, tenant) not in (None, "deleted")
        except StoreUnavailable:
            # The id may not exist, and each deletion is a record to be kept. Or it may be another
            # tenant's.
            if server.storage_backlog_full or has_token(request):
                raise
            known = True
        if not known:
            raise RefusedError(404, "not_found", NOT_FOUND)
    return await server.delete(session_id, tenant)


# ------------------------------------------------------------------------------- a session as JSON


async def _find(server: Server, session_id: str, tenant: str, *, chunks: bool) -> dict[str, Any]:
    """Return the session, from this gateway or from the database.

    Raises:
        RefusedError: the tenant has no such session.
    """
    runner = server.sessions.get(session_id)
    if runner is not None and runner.session.tenant != tenant:
        raise RefusedError(404, "not_found", NOT_FOUND)
    try:
        stored = await server.reader.session(session_id, tenant, chunks=chunks)
    except StoreUnavailable:
        if runner is None:
            raise
        stored = None  # Of a running session only the details of chunks are missing.
    if runner is not None:
        live = live_session(runner.session)
        return live | {"chunks": stored["chunks"] if stored else []} if chunks else live
    if stored is None:
        raise RefusedError(404, "not_found", NOT_FOUND)
    speakers = stored["speakers"]
    segments = [segment_answer(result, speakers.get(result.seq)) for result in stored["segments"]]
    text = text_of(stored)
    former = former_fields(session_id, text, stored["segments"])
    return {**stored, **former, "text": text, "segments": segments}


def former_fields(session_id: str, text: str, segments: Iterable[Result]) -> dict[str, Any]:
    """Return the fields by the names of the system that this one replaces, whose clients work with
    only the address changed. ``results`` and ``completed`` are keyed by the index of the chunk in
    which a segment ends. No audio is stored, so ``audio_path`` is always null."""
    texts: defaultdict[int, list[str]] = defaultdict(list)
    for segment in segments:
        texts[segment.last_chunk_index].append(segment.text or "")
    return {
        "id": session_id,
        "final_text": text,
        "results": {index: join_texts(parts) for index, parts in texts.items()},
        "completed": dict.fromkeys(texts, True),
        "audio_path": None,
    }


def live_session(session: Session) -> dict[str, Any]:
    """Return the running ``session`` as a ``SessionAnswer``. Details of its chunks are in the
    database only."""
    delivered = session.delivery.results
    start = session.start
    return {
        "session_id": session.session_id,
        "user_id": start.user_id if start is not None else "",
        "status": session.state.value,
        "model": start.model if start is not None else "",
        "text": session.text,
        "duration": session.duration_ms / 1000,
        "chunk_count": session.chunk_count,
        "segment_count": len(delivered),
        "created_at": datetime.fromtimestamp(session.started_at_ms / 1000, UTC).isoformat(),
        "completed_at": None,
        "live": True,
        "segments": [
            segment_answer(result, session.delivery.speaker(result.seq)) for result in delivered
        ],
        **former_fields(session.session_id, session.text, delivered),
    }


# ----------------------------------------------------------------------------- a session as a file


def disposition_of(session: dict[str, Any], wanted: TranscriptFormat) -> str:
    """Return the ``Content-Disposition`` (RFC 6266) with a recognisable file name: the start time
    of the session and its first words."""
    words = "".join(
        letter if unicodedata.category(letter)[0] in "LMN" else " "
        for letter in session["text"][:NAME_CHARS_MAX]
    )
    began = session["created_at"][:16].replace("T", " ").replace(":", "-")
    name = " ".join(f"{began} {words}".split())
    suffix = "txt" if wanted == "text" else wanted
    kind = "inline" if wanted == "json" else "attachment"
    return f"{kind}; filename=\"{began}.{suffix}\"; filename*=UTF-8''{quote(name)}.{suffix}"


def transcript_response(session: dict[str, Any], wanted: TranscriptFormat) -> Response:
    """Return the transcript of ``session`` (a ``SessionAnswer``) as a file, without segments that
    have no text."""
    segments = [
        Segment(
            text=row["text"],
            start_ms=row["start_ms"],
            end_ms=row["end_ms"],
            tokens=tuple(Token(**token) for token in row["tokens"]),
            speaker=row["speaker"],
        )
        for row in session["segments"]
        if row["text"]
    ]
    if wanted == "srt":
        return Response(to_srt(segments), media_type="application/x-subrip; charset=utf-8")
    if wanted == "vtt":
        return Response(to_vtt(segments), media_type="text/vtt; charset=utf-8")
    text = join_texts(segment.text for segment in segments)
    return Response(text + "\n", media_type="text/plain; charset=utf-8")
