"""Access control: a token, checked before a request reaches any route.

It wraps the whole application and allows nothing but ``OPEN`` without a token, so no new route can
be forgotten. A WebSocket is refused before its upgrade.
"""

from __future__ import annotations

import base64
import time
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from gateway.dialects import openai
from gateway.telemetry.metrics import REFUSED
from gateway.web.auth_tokens import AuthTokens

OPEN = frozenset({"/", "/dashboard", "/docs", "/openapi.json", "/livez", "/readyz"})
"""Paths that need no token for GET, besides ``STATIC``: the pages, which contain no data and ask
for a token, the description of the API, and the probes."""
STATIC = "/static/"
PROTOCOL_PREFIX = "bearer."
"""Prefix of a token that is offered as a WebSocket subprotocol. Browsers do not let a page set a
header of an upgrade."""
CODE = "unauthorized"
MESSAGE = "a token is required: Authorization: Bearer TOKEN"
_SECRET_HEADERS = (b"authorization", b"sec-websocket-protocol")


class TokenCheck:
    """ASGI middleware that allows requests with one of ``tokens``.

    The name of the token, never the token, is ``token_name`` in log lines and in the state of an
    allowed request (``request.state``, ``websocket.state``).
    """

    def __init__(self, app: ASGIApp, tokens: AuthTokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_open(scope):
            await self._app(scope, receive, send)
            return
        shown = shown_tokens(scope)
        now_s = time.monotonic()
        names = [name for token in shown if (name := self._tokens.name_of(token, now_s))]
        if not names:
            REFUSED.labels(CODE).inc()
            await _refuse(scope, receive, send, wrong=bool(shown))
            return
        with structlog.contextvars.bound_contextvars(token_name=names[0]):
            state = {**scope.get("state", {}), "token_name": names[0]}
            await self._app({**without_token(scope), "state": state}, receive, send)


def is_open(scope: Scope) -> bool:
    """Whether the request needs no token. ``/`` is a page, and as a WebSocket a dialect."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    return scope["path"] in OPEN or scope["path"].startswith(STATIC)


def shown_tokens(scope: Scope) -> list[str]:
    """Return the tokens of a request, at most two: one of the header and one offered as a
    subprotocol, because a reverse proxy may have put its own password into the header."""
    found = []
    header = Headers(scope=scope).get("authorization", "")
    scheme, _, credentials = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        found.append(credentials.strip())
    elif scheme.lower() == "basic":
        found += _password(credentials)
    offered = [name for name in scope.get("subprotocols", ()) if name.startswith(PROTOCOL_PREFIX)]
    found += [name.removeprefix(PROTOCOL_PREFIX) for name in offered[:1]]
    return found


def _password(credentials: str) -> list[str]:
    """Return the password of HTTP Basic (RFC 7617) for any user; none if it is malformed."""
    try:
        return [base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]]
    except ValueError:
        return []


def without_token(scope: Scope) -> Scope:
    """Return ``scope`` for the application: without the token, it cannot be logged."""
    headers = [item for item in scope["headers"] if item[0].lower() not in _SECRET_HEADERS]
    passed = {**scope, "headers": headers}
    if "subprotocols" in scope:
        passed["subprotocols"] = [
            name for name in scope["subprotocols"] if not name.startswith(PROTOCOL_PREFIX)
        ]
    return passed


async def _refuse(scope: Scope, receive: Receive, send: Send, *, wrong: bool) -> None:
    # Basic is accepted but not offered, because browsers would open a login dialog.
    challenge = 'Bearer error="invalid_token"' if wrong else "Bearer"  # RFC 6750, section 3
    openai_body = scope["path"].startswith("/v1/")
    body = openai.error(401, CODE, MESSAGE) if openai_body else {"code": CODE, "message": MESSAGE}
    # Without the close a client could go on sending the body of the request.
    headers = {"WWW-Authenticate": challenge, "Connection": "close"}
    response = JSONResponse(body, 401, headers)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


def describe_access(app: FastAPI, *, required: bool) -> None:
    """Add access control to the OpenAPI description. Call it after all routes are added."""
    schema: dict[str, Any] = app.openapi()
    schema["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "password": {"type": "http", "scheme": "basic", "description": "The token as password."},
    }
    either: list[dict[str, list[str]]] = [{"token": []}, {"password": []}]
    schema["security"] = either if required else [{}, *either]
    for path, operations in schema["paths"].items():
        problem = {"$ref": "#/components/schemas/ProblemAnswer"}
        body = {"type": "object", "required": ["error"]} if path.startswith("/v1/") else problem
        for operation in operations.values():
            operation["responses"]["401"] = {
                "description": "No token, or an unknown one",
                "content": {"application/json": {"schema": body}},
            }
