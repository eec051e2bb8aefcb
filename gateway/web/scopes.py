"""The scope that each route needs, in one table: REST and every WebSocket dialect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette import types
from starlette.routing import compile_path

from gateway.dialects.registry import DIALECTS
from gateway.web.auth_tokens import Scope

WEBSOCKET = "WebSocket"
"""Stands in the table instead of a method."""

NEEDED: Final[dict[tuple[str, str], Scope | None]] = {
    **{(WEBSOCKET, path): "transcribe" for path in DIALECTS},
    ("POST", "/v1/audio/transcriptions"): "transcribe",
    ("POST", "/v1/audio/translations"): "transcribe",
    ("POST", "/v1/listen"): "transcribe",
    ("POST", "/recognition"): "transcribe",
    ("POST", "/api/v1/asr/submit"): "transcribe",
    ("POST", "/api/v1/asr/retry/{task_id}"): "transcribe",
    ("GET", "/api/v1/asr/result/{task_id}"): "read",
    ("GET", "/api/v1/asr/history"): "read",
    ("DELETE", "/api/v1/asr/task/{task_id}"): "admin",
    ("GET", "/api/v1/history"): "read",
    ("GET", "/api/v1/session/{session_id}"): "read",
    ("DELETE", "/api/v1/session/{session_id}"): "admin",
    # Figures of the whole system, over all tenants.
    ("GET", "/api/v1/stats"): "admin",
    ("GET", "/api/v1/system"): "admin",
    ("GET", "/metrics"): "admin",
    # Routes that clients need before a start, and routes that store and read nothing.
    ("GET", "/api/v1/admission"): None,
    ("GET", "/api/v1/health"): None,
    ("GET", "/api/v1/asr/queue/status"): None,
    ("GET", "/v1/models"): None,
    ("GET", "/v1/models/{name:path}"): None,
    ("POST", "/api/v1/export"): None,
}
"""By method and path of the route. None: any valid token will do."""

_PATTERNS = [(key, compile_path(key[1])[0]) for key in NEEDED]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The route that a request matches, and the scope that it requires."""

    path: str
    """Of the route; "other" if it is not in the table."""
    needed: Scope | None
    """The scope; None: any token will do."""
    session_id: str | None = None
    """The session that the path names."""


def route_of(request: types.Scope) -> Route:
    """Return the route of the request. A route missing from the table requires ``admin``, so that
    a forgotten entry closes the route instead of opening it."""
    asked = WEBSOCKET if request["type"] == "websocket" else request["method"]
    for (method, path), pattern in _PATTERNS:
        if method == asked and (match := pattern.match(request["path"])):
            named = match.groupdict()
            session_id = named.get("session_id", named.get("task_id"))
            return Route(path=path, needed=NEEDED[method, path], session_id=session_id)
    return Route(path="other", needed="admin")
