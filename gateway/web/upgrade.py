"""The WebSocket routes of all dialects, and the checks before a connection is accepted.

A refusal is an ordinary HTTP answer: 404 for an unknown path, 400 for a query that is invalid in
the dialect, 503 with ``Retry-After`` if the gateway admits no further session, 429 if the token has
reached a limit.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Query, Request, WebSocket
from starlette.types import Receive, Scope, Send

from gateway.dialects.dialect import Handshake, MessageError
from gateway.dialects.fields import shown_names
from gateway.dialects.registry import DIALECTS, NewDialect
from gateway.server import Server
from gateway.web.caller import caller_of
from gateway.web.description import SYSTEM
from gateway.web.errors import RefusedError, invalid_query, refused
from gateway.web.parameters import WARNS_OF_UNKNOWN
from gateway.web.schemas import AdmissionAnswer, ProblemAnswer
from gateway.web.websocket import WebSocketConnection

SUBPROTOCOLS = ("binary", "asr", "token", "bearer", "realtime")
"""Accepted if offered, without further meaning. FunASR's clients offer the first. Clients that
offer a token as a subprotocol (``gateway.web.auth``) offer one of the others as well, because
browsers require that the server accepts one of their offers."""

ADMISSION = "/api/v1/admission"


def add_dialects(app: FastAPI, server: Server) -> None:
    """Mount every dialect at its path. A WebSocket at any other path gets 404."""
    for path, new_dialect in DIALECTS.items():
        _mount(app, server, path, new_dialect)
    for_http = app.router.default

    async def no_such_path(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await for_http(scope, receive, send)
            return
        message = f"there is no {scope['path']}; WebSockets are at {', '.join(DIALECTS)}"
        response = refused(scope["path"], RefusedError(404, "not_found", message))
        await WebSocket(scope, receive, send).send_denial_response(response)

    app.router.default = no_such_path

    @app.get(
        ADMISSION,
        tags=[SYSTEM],
        response_model=AdmissionAnswer,
        responses={503: {"model": ProblemAnswer}},
        dependencies=[WARNS_OF_UNKNOWN],
    )
    async def admission(
        request: Request,
        resume: Annotated[str | None, Query(max_length=200)] = None,
        model: Annotated[str, Query(max_length=200)] = "",
    ) -> Any:
        """Whether a WebSocket would be accepted now. Browsers do not show the answer to a refused
        upgrade; this request gets the same 503 with ``Retry-After``. ``resume`` and ``model`` are
        parameters of the WebSocket's address."""
        refusal = await server.gate.would_refuse(
            resume or None, server.gate.model_of(model), caller_of(request)
        )
        return refused(ADMISSION, refusal) if refusal is not None else {"admitted": True}


def _mount(app: FastAPI, server: Server, path: str, new_dialect: NewDialect) -> None:
    @app.websocket(path)
    async def recognise(websocket: WebSocket) -> None:
        offered = websocket.scope.get("subprotocols", [])
        query = parse_qs(websocket.url.query, keep_blank_values=True)
        try:
            dialect = new_dialect(Handshake(query, dict(websocket.headers), offered))
        except MessageError as error:
            await websocket.send_denial_response(invalid_query(path, error))
            return
        known = dialect.parameters
        without_effect = [f"?{name}" for name in query if known is not None and name not in known]
        address_model = dialect.served_name(websocket.query_params.get("model", ""))
        model = server.gate.model_of(address_model)
        caller = caller_of(websocket)
        resume = websocket.query_params.get("resume") or None
        refusal = await server.gate.enter(resume, model, caller=caller)
        if refusal is not None:
            await websocket.send_denial_response(refused(path, refusal))
            return
        try:
            await websocket.accept(next((name for name in SUBPROTOCOLS if name in offered), None))
            connection = WebSocketConnection(
                websocket,
                dialect,
                server,
                address_model=address_model,
                ignored=shown_names(without_effect),
                admitted=model,
            )
            await connection.run()
        finally:
            server.gate.leave(caller)
