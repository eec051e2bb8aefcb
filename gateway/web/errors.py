"""Error answers of all routes, and of WebSockets before their upgrade. Their format is ``problem``,
except below ``/v1``, whose clients expect OpenAI's format, at ``/v1/listen`` (Deepgram's) and at
``/recognition`` (FunASR's)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.admission.policy import Refusal
from gateway.dialects import deepgram_query, funasr_file, openai
from gateway.dialects.dialect import MessageError
from gateway.dialects.registry import DIALECTS
from gateway.telemetry import metrics
from gateway.web.schemas import problem
from persistence.reads import StoreUnavailable

RETRY_AFTER_S = 5
NO_STORE = Refusal(
    code="store_unavailable", message="the database does not answer", retry_after_s=2
)
INVALID = "invalid_request"
DEEPGRAM_PATH = "/v1/listen"
RECOGNITION_PATH = "/recognition"
UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade"}
ERRORS_NAMED_MAX = 5
"""Most invalid parameters that a message names."""


class RefusedError(MultiPartException):
    """The error answer to a request. ``param``: the invalid field. It is a ``MultiPartException``,
    so that the parser of forms closes its files."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_s: int = RETRY_AFTER_S,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s if status in (429, 503) else None
        self.headers = dict(headers or {})

    @classmethod
    def not_admitted(cls, refusal: Refusal) -> RefusedError:
        """The gate has refused the request."""
        after_s = refusal.retry_after_s
        return cls(refusal.status, refusal.code, refusal.message, retry_after_s=after_s)


def refused(path: str, error: RefusedError | Refusal) -> JSONResponse:
    """Return the answer to a request for ``path`` that is refused, or not admitted. OpenAI's format
    also names the invalid ``param``, and the gateway's own ``retry_after_s``, which all have as a
    header."""
    error = RefusedError.not_admitted(error) if isinstance(error, Refusal) else error
    path = path.rstrip("/")
    body: dict[str, Any]
    if path == RECOGNITION_PATH:
        body = funasr_file.error(error.code, error.message)
    elif path == DEEPGRAM_PATH:
        body = deepgram_query.refusal(error.code, error.message, str(uuid.uuid4()))
    elif path == "/v1" or path.startswith("/v1/"):
        body = openai.error(error.status, error.code, error.message, error.param)
    else:
        body = {**problem(error.code, error.message)}
        if error.retry_after_s is not None:
            body["retry_after_s"] = error.retry_after_s
    retry = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return JSONResponse(body, error.status, {**retry, **error.headers})


def invalid_query(path: str, error: MessageError) -> JSONResponse:
    """Return the answer to a request for ``path`` whose query its dialect refuses."""
    metrics.BAD_REQUESTS.labels("invalid").inc()
    return refused(path, RefusedError(400, "invalid_query_parameter", str(error)))


async def deny(error: RefusedError, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a request, a WebSocket before its upgrade, and count that."""
    metrics.REFUSED.labels(error.code).inc()
    response = refused(scope["path"], error)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


def answer_errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> JSONResponse:
        path, method, status = request.url.path, request.method, error.status_code
        code, message, headers = "refused", str(error.detail), {}
        if status in (404, 405) and method == "GET" and path in DIALECTS:
            status, code, headers = 426, "upgrade_required", UPGRADE
            message = (
                f"{path} is a WebSocket, and the request no upgrade; a reverse proxy has to pass "
                "on the headers Upgrade and Connection"
            )
        elif status == 404:
            code, message = "not_found", f"there is no {path}"
        elif status == 405:
            allowed = ", ".join(allowed_methods(app, request.scope))
            code, headers = "method_not_allowed", {"Allow": allowed}
            message = f"{path} does not take {method}; it takes {allowed}"
        return refused(path, RefusedError(status, code, message, headers=headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        metrics.BAD_REQUESTS.labels("invalid").inc()
        named = "; ".join(map(_described, error.errors()[:ERRORS_NAMED_MAX]))
        return refused(request.url.path, RefusedError(422, INVALID, named))

    @app.exception_handler(RefusedError)
    async def file_refused(request: Request, error: RefusedError) -> JSONResponse:
        # The connection stays open: a client that is still sending would not get the answer.
        return refused(request.url.path, error)

    @app.exception_handler(StoreUnavailable)
    async def store_unavailable(request: Request, _error: Exception) -> JSONResponse:
        return refused(request.url.path, NO_STORE)

    @app.exception_handler(Exception)
    async def failed(request: Request, _error: Exception) -> JSONResponse:
        # uvicorn logs the traceback.
        return refused(request.url.path, RefusedError(500, "internal_error", "an internal error"))


def allowed_methods(app: FastAPI, scope: Scope) -> list[str]:
    """Return the methods of all routes of the path, because Starlette knows only those of one.
    ``Tolerance`` takes HEAD where they take GET."""
    methods: set[str] = set()
    for route in app.routes:
        if route.matches(scope)[0] != Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _described(error: dict[str, Any]) -> str:
    place, *path = error["loc"]
    name = ".".join(str(part) for part in path or [place])
    return f"{name}: {error['msg']}"
