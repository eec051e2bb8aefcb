"""Who may use the gateway: a token, checked before a request reaches any route.

Around the whole application, and closed unless ``OPEN`` says otherwise, so that no route can be
forgotten. A WebSocket is refused before its upgrade.
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
"""What anybody may GET: pages, which hold no data and ask for a token; the description of the API;
is this process alive, and ready. ``STATIC`` as well."""
STATIC = "/static/"
PROTOCOL_PREFIX = "bearer."
"""In front of a token that is offered as a WebSocket subprotocol, because browsers let a page set
no header of an upgrade."""
CODE = "unauthorized"
MESSAGE = "show a token: Authorization: Bearer TOKEN"
_SECRET_HEADERS = (b"authorization", b"sec-websocket-protocol")


class Access:
    """ASGI middleware that lets in whoever shows one of ``tokens``. What it lets in is told the
    token's name, in ``token_name`` of its log lines, and never the token."""

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
            await self._app(without_token(scope), receive, send)


def is_open(scope: Scope) -> bool:
    """Whether anybody may have it. ``/`` is a page, and as a WebSocket a dialect."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    return scope["path"] in OPEN or scope["path"].startswith(STATIC)


def shown_tokens(scope: Scope) -> list[str]:
    """The tokens that a request shows, two at most: one in a header and, as a proxy in front may
    have put its own password there, one as a subprotocol."""
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
    """The password of HTTP Basic, whatever the user (RFC 7617); none if it is malformed."""
    try:
        return [base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]]
    except ValueError:
        return []


def without_token(scope: Scope) -> Scope:
    """``scope`` as whatever comes after gets it: what does not have a token cannot log it."""
    headers = [item for item in scope["headers"] if item[0].lower() not in _SECRET_HEADERS]
    passed = {**scope, "headers": headers}
    if "subprotocols" in scope:
        passed["subprotocols"] = [
            name for name in scope["subprotocols"] if not name.startswith(PROTOCOL_PREFIX)
        ]
    return passed


async def _refuse(scope: Scope, receive: Receive, send: Send, *, wrong: bool) -> None:
    # Not Basic, which is accepted: browsers would ask for a user in a window of their own.
    challenge = 'Bearer error="invalid_token"' if wrong else "Bearer"  # RFC 6750, section 3
    openai_body = scope["path"].startswith("/v1/")
    body = openai.error(401, CODE, MESSAGE) if openai_body else {"code": CODE, "message": MESSAGE}
    # Without the close a stranger could go on sending the request's body for as long as he likes.
    headers = {"WWW-Authenticate": challenge, "Connection": "close"}
    response = JSONResponse(body, 401, headers)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


def describe_access(app: FastAPI, *, required: bool) -> None:
    """Have the OpenAPI description tell of tokens. Call it when every route is there."""
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
                "description": "No token, or a wrong one",
                "content": {"application/json": {"schema": body}},
            }
