"""The log event ``audit`` for each request that reads or deletes sessions, or is refused because of
its token: token, route, session, address. Only with access tokens."""

from __future__ import annotations

import time
from typing import Final, Literal

import structlog
from starlette.types import Message, Scope, Send

from gateway.admission.token_uses import TOO_MANY_REQUESTS
from gateway.storage.callers import Caller
from gateway.telemetry.metrics import AUDIT_OMITTED
from gateway.web.scopes import WEBSOCKET, Route

REFUSED_PER_S_MAX: Final = 20
"""Refused requests that are logged in a second. Further ones are counted: anybody can cause them,
and a full disk would stop all logging."""
Action = Literal["read", "delete", "refuse"]
_ANSWERS: Final = ("http.response.start", "websocket.http.response.start")


class Audit:
    """Writes the events of one gateway."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("audit")
        self._second = 0
        self._refused = 0

    def refused(self, scope: Scope, route: Route, caller: Caller, status: int, code: str) -> None:
        """Log a request that is refused because of its token, or because it has none."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._refused = second, 0
        self._refused += 1
        if self._refused > REFUSED_PER_S_MAX:
            AUDIT_OMITTED.inc()
            return
        self._write("refuse", scope, route, caller, status, code=code)

    def noting(self, scope: Scope, route: Route, caller: Caller, send: Send) -> Send:
        """Return ``send`` for a request with a valid token. Its answer is logged if the request
        reads or deletes sessions, or is refused because of a limit of the token."""
        deletes = scope.get("method") == "DELETE"
        action: Action | None = "delete" if deletes else "read" if route.needed == "read" else None

        async def sending(message: Message) -> None:
            if message["type"] in _ANSWERS:
                refused = message["status"] == TOO_MANY_REQUESTS
                done: Action | None = "refuse" if refused else action
                if done is not None:
                    self._write(done, scope, route, caller, message["status"])
            await send(message)

        return sending

    def _write(
        self,
        action: Action,
        scope: Scope,
        route: Route,
        caller: Caller,
        status: int,
        **more: str,
    ) -> None:
        method = WEBSOCKET if scope["type"] == "websocket" else scope["method"]
        self._log.info(
            "audit",
            action=action,
            request=f"{method} {route.path}",
            session_id=route.session_id,
            token_name=caller.token_name or None,
            tenant=caller.tenant if caller.token_name else None,
            client=caller.address,
            status=status,
            **more,
        )
