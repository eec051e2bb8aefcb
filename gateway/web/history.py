"""The history of sessions over REST: pages, filters, and search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from msgspec import to_builtins

from gateway.dialects.fields import MODEL_CHARS_MAX, USER_ID_CHARS_MAX
from gateway.server import Server
from gateway.web.caller import caller_of
from gateway.web.description import SESSIONS
from gateway.web.parameters import Time, Warnings
from gateway.web.schemas import HistoryAnswer, ProblemAnswer
from persistence import history as h
from persistence.search_terms import query_of

WORDS_CHARS_MAX = 200
"""Characters of ``q``."""
CURSOR_CHARS_MAX = 300
_STORABLE = r"^[^\x00]*$"

Status = Literal["active", "completed", "failed", "abandoned", "interrupted", "lost"]


def add_history(app: FastAPI, server: Server) -> None:
    @app.get(
        "/api/v1/history",
        tags=[SESSIONS],
        response_model=HistoryAnswer,
        responses={503: {"model": ProblemAnswer}},
    )
    async def history(
        request: Request,
        warnings: Warnings,
        limit: Annotated[int, Query(ge=1, le=h.LIMIT_MAX, description="Sessions of a page")] = 50,
        cursor: Annotated[
            str,
            Query(max_length=CURSOR_CHARS_MAX, description="The `next_cursor` of the page before"),
        ] = "",
        offset: Annotated[
            int, Query(ge=0, le=h.OFFSET_MAX, description="Sessions to skip; prefer `cursor`")
        ] = 0,
        since: Annotated[
            Time | None, Query(description="Begun at this time or later; without an offset, UTC")
        ] = None,
        until: Annotated[Time | None, Query(description="Begun before this time")] = None,
        user_id: Annotated[
            str | None, Query(max_length=USER_ID_CHARS_MAX, pattern=_STORABLE)
        ] = None,
        status: Annotated[list[Status] | None, Query(description="Any of these")] = None,
        model: Annotated[str | None, Query(max_length=MODEL_CHARS_MAX, pattern=_STORABLE)] = None,
        q: Annotated[
            str,
            Query(
                max_length=WORDS_CHARS_MAX,
                description="Words that the text of an ended session has, all of them and in any "
                "order; `wor*` finds words that begin so; parts of Chinese words are found, too",
            ),
        ] = "",
        texts: Annotated[bool, Query(description="Whole texts, not only previews")] = False,
    ) -> dict[str, Any]:
        """Stored sessions, newest first. Sessions that are stored meanwhile move none from one page
        to another."""
        asked = h.HistoryQuery(
            tenant=caller_of(request).tenant,
            limit=limit,
            offset=offset,
            cursor=_cursor(cursor),
            since=since,
            until=until,
            user_id=user_id,
            statuses=tuple(status or ()),
            model=model,
            words=_words(q),
            texts=texts,
        )
        page = await server.reader.history(asked)
        return {
            "total": page.total,
            "total_max": h.TOTAL_MAX,
            "records": list(page.records),
            "next_cursor": page.next_cursor,
            "warnings": to_builtins(warnings),
        }


def _cursor(text: str) -> h.Cursor | None:
    try:
        return h.Cursor.decode(text) if text else None
    except ValueError as error:
        raise _invalid("cursor", str(error)) from error


def _words(q: str) -> str:
    if q.strip() and not query_of(q):
        raise _invalid("q", "no letter or digit to search for")
    return q


def _invalid(name: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("query", name), "msg": message, "type": "value_error"}])
