"""Access control: a token and its scopes, checked before a request reaches any route.

It wraps the whole application and allows nothing but ``OPEN`` without a token, so no new route can
be forgotten. A WebSocket is refused before its upgrade.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.admission.policy import Refusal
from gateway.storage.callers import Caller
from gateway.web.audit import Audit
from gateway.web.auth_tokens import Access, AuthTokens
from gateway.web.caller import client_address
from gateway.web.errors import RefusedError, deny
from gateway.web.jwt_tokens import JwtRefusedError, JwtTokens, is_jwt
from gateway.web.scopes import Route, route_of

OPEN = frozenset(
    {
        *("/", "/dashboard", "/docs", "/openapi.json", "/asyncapi.json"),
        *("/health", "/livez", "/readyz"),
    }
)
"""Paths that need no token for GET, besides ``STATIC``: the pages, which contain no data and ask
for a token, the description of the API, and the probes."""
LIMITED = frozenset({"/api/v1/health"})
"""Paths whose GET answers without a token, too, but with fewer details. A wrong token is
refused."""
STATIC = "/static/"
PROTOCOL_PREFIXES = ("bearer.", "openai-insecure-api-key.")
"""Prefixes of a token that is offered as a WebSocket subprotocol, because a page in a browser
cannot set headers of an upgrade. The second is from OpenAI's Realtime API."""
CODE = "unauthorized"
PROTOCOL_SCHEMES = ("token", "bearer")
"""Subprotocols that are followed by a token: Deepgram's clients in browsers offer both."""
MESSAGE = "a token is required: Authorization: Bearer TOKEN"
UNKNOWN = "this token is not known: it was removed, or is not complete"
EXPIRED = "this token has expired"
SCOPE_CODE = "insufficient_scope"
"""The error of RFC 6750, section 3.1."""
_SECRET_HEADERS = (b"authorization", b"sec-websocket-protocol")


class TokenCheck:
    """ASGI middleware that allows requests with a token that has the scope they need: one of
    ``tokens``, or one of the identity ``provider``.

    The name of the token, never the token, is ``token_name`` in log lines. The state of an allowed
    request (``request.state``, ``websocket.state``) has the ``caller``.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: AuthTokens | None,
        provider: JwtTokens | None,
        refuse_request: Callable[[Caller], Awaitable[Refusal | None]],
    ) -> None:
        """``refuse_request`` counts a request with a valid token, and decides on it
        (``gateway.admission.quotas``)."""
        self._app = app
        self._tokens = tokens
        self._provider = provider
        self._refuse_request = refuse_request
        self._audit = Audit()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or is_open(scope):
            await self._app(scope, receive, send)
            return
        shown = shown_tokens(scope)
        if not shown and scope["path"] in LIMITED and _reads(scope):
            await self._app(scope, receive, send)
            return
        caller, route = Caller(address=client_address(HTTPConnection(scope))), route_of(scope)
        try:
            name, access = await self._valid(shown)
            caller = replace(caller, tenant=access.tenant, token_name=name, limits=access.limits)
            await self._check(route, access, caller)
        except RefusedError as error:
            self._audit.refused(scope, route, caller, error.status, error.code)
            await deny(error, scope, receive, send)
            return
        send = self._audit.noting(scope, route, caller, send)
        with structlog.contextvars.bound_contextvars(token_name=name):
            state = {**scope.get("state", {}), "caller": caller}
            await self._app({**without_token(scope), "state": state}, receive, send)

    async def _valid(self, shown: list[str]) -> tuple[str, Access]:
        """Return the name and the permissions of the first token that is valid."""
        message = MESSAGE
        for token in shown:
            try:
                found = await self._find(token)
            except JwtRefusedError as error:
                message = str(error)
            else:
                if found is not None and not found[1].expired(datetime.now(UTC)):
                    return found
                message = UNKNOWN if found is None else EXPIRED
        # Basic is accepted but not offered, because browsers would open a login dialog.
        wrong = 'Bearer error="invalid_token"' if shown else "Bearer"  # RFC 6750, section 3
        raise RefusedError(401, CODE, message, headers={"WWW-Authenticate": wrong})

    async def _find(self, token: str) -> tuple[str, Access] | None:
        if self._provider is not None and is_jwt(token):
            return await self._provider.find(token)
        return self._tokens.find(token, time.monotonic()) if self._tokens is not None else None

    async def _check(self, route: Route, access: Access, caller: Caller) -> None:
        """Refuse a token that has reached a limit, or does not have the scope."""
        too_many = await self._refuse_request(caller)
        if too_many is not None:
            raise RefusedError.not_admitted(too_many)
        if route.needed is not None and route.needed not in access.scopes:
            challenge = f'Bearer error="{SCOPE_CODE}", scope="{route.needed}"'
            message = f"this token does not have the scope {route.needed}"
            raise RefusedError(403, SCOPE_CODE, message, headers={"WWW-Authenticate": challenge})


def is_open(scope: Scope) -> bool:
    """Whether the request needs no token. ``/`` is a page, and as a WebSocket a dialect."""
    return _reads(scope) and (scope["path"] in OPEN or scope["path"].startswith(STATIC))


def _reads(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] in ("GET", "HEAD")


def shown_tokens(scope: Scope) -> list[str]:
    """Return the tokens of a request, at most two: one of the header and one offered as a
    subprotocol, because a reverse proxy may have put its own password into the header."""
    found = []
    header = Headers(scope=scope).get("authorization", "")
    scheme, _, credentials = header.strip().partition(" ")
    if scheme.lower() in ("bearer", "token"):  # Deepgram's clients send "Token".
        found.append(credentials.strip())
    elif scheme.lower() == "basic":
        found += _password(credentials)
    return [*found, *_offered(scope.get("subprotocols", ()))[:1]]


def _offered(subprotocols: Sequence[str]) -> list[str]:
    """Return the tokens among ``subprotocols``."""
    pairs = zip(["", *subprotocols], subprotocols, strict=False)
    return [
        _without_prefix(name)
        for before, name in pairs
        if name.startswith(PROTOCOL_PREFIXES) or before.lower() in PROTOCOL_SCHEMES
    ]


def _without_prefix(name: str) -> str:
    return name.partition(".")[2] if name.startswith(PROTOCOL_PREFIXES) else name


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
        hidden = _offered(scope["subprotocols"])
        passed["subprotocols"] = [
            name for name in scope["subprotocols"] if _without_prefix(name) not in hidden
        ]
    return passed
