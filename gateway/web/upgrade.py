"""The WebSocket routes of all dialects, and the checks before a connection is accepted.

A refusal is an ordinary HTTP answer: 403 for a web origin that is not allowed, 503 with
``Retry-After`` if the gateway admits no further session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Query, WebSocket
from fastapi.responses import JSONResponse

from gateway.admission.policy import Refusal
from gateway.dialects.dialect import Dialect
from gateway.dialects.registry import DIALECTS
from gateway.server import Server
from gateway.telemetry import metrics
from gateway.web.schemas import AdmissionAnswer, ProblemAnswer
from gateway.web.websocket import WebSocketConnection

SUBPROTOCOLS = ("binary", "asr")
"""Accepted if offered, without further meaning. FunASR's clients offer the first. Clients that
offer a token as a subprotocol (``gateway.web.auth``) offer the second as well, because browsers
require that the server accepts one of their offers."""


def add_dialects(app: FastAPI, server: Server) -> None:
    """Mount every dialect at its path."""
    for path, new_dialect in DIALECTS.items():
        _mount(app, server, path, new_dialect)

    @app.get(
        "/api/v1/admission",
        response_model=AdmissionAnswer,
        responses={503: {"model": ProblemAnswer}},
    )
    async def admission(
        resume: Annotated[str | None, Query(max_length=200)] = None,
        model: Annotated[str, Query(max_length=200)] = "",
    ) -> Any:
        """Whether a WebSocket would be accepted now. Browsers do not show the answer to a refused
        upgrade; this request gets the same 503 with ``Retry-After``. ``resume`` and ``model`` are
        parameters of the WebSocket's address."""
        refusal = await server.gate.would_refuse(resume or None, server.gate.model_of(model))
        return refused(refusal) if refusal is not None else {"admitted": True}


def _mount(app: FastAPI, server: Server, path: str, new_dialect: Callable[[], Dialect]) -> None:
    @app.websocket(path)
    async def recognise(websocket: WebSocket) -> None:
        if not origin_allowed(websocket, server.settings.allowed_origins):
            metrics.REFUSED.labels("origin_refused").inc()
            body = {"code": "origin_refused", "message": "this web origin may not connect"}
            await websocket.send_denial_response(JSONResponse(body, 403))
            return
        asked = websocket.query_params.get("model", "")
        model = server.gate.model_of(asked)
        refusal = await server.gate.enter(websocket.query_params.get("resume") or None, model)
        if refusal is not None:
            await websocket.send_denial_response(refused(refusal))
            return
        try:
            offered = websocket.scope.get("subprotocols", [])
            await websocket.accept(next((name for name in SUBPROTOCOLS if name in offered), None))
            connection = WebSocketConnection(
                websocket, new_dialect(), server, asked=asked, admitted=model
            )
            await connection.run()
        finally:
            server.gate.leave()


def origin_allowed(websocket: WebSocket, allowed: str) -> bool:
    """Whether the web page that opens the WebSocket may do so. Browsers send ``Origin``, and a page
    of another site must not use the gateway in its visitor's name. Other clients send none."""
    origin = websocket.headers.get("origin")
    if origin is None:
        return True
    names = {name.strip() for name in allowed.split(",") if name.strip()}
    if "*" in names or origin in names:
        return True
    try:
        return urlsplit(origin).netloc == websocket.headers.get("host")
    except ValueError:
        return False


def refused(refusal: Refusal) -> JSONResponse:
    """Return the HTTP answer for ``refusal``."""
    return JSONResponse(refusal.body(), 503, {"Retry-After": str(refusal.retry_after_s)})
