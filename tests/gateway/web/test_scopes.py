"""The table of scopes; that refusals follow from it is tested in ``test_auth``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from starlette.routing import Route, WebSocketRoute

from gateway.server import Server
from gateway.web.app import create_app
from gateway.web.auth import is_open
from gateway.web.scopes import NEEDED, WEBSOCKET, route_of


def test_every_closed_route_is_in_the_table_and_nothing_else() -> None:
    routes = create_app(cast(Server, SimpleNamespace()), {}).routes
    closed = {(WEBSOCKET, route.path) for route in routes if isinstance(route, WebSocketRoute)}
    for route in routes:
        for method in (route.methods or ()) if isinstance(route, Route) else ():
            request = {"type": "http", "method": method, "path": cast(Route, route).path}
            # HEAD is GET before access control: gateway.web.tolerance.
            if method != "HEAD" and not is_open(request):
                closed.add((method, cast(Route, route).path))
    closed.discard(("GET", "/static/{name}"))
    assert closed == set(NEEDED)


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("GET", "/api/v1/session/a", "read"),
        ("DELETE", "/api/v1/session/a", "admin"),
        ("GET", "/v1/models/a/b", None),
        ("PUT", "/api/v1/history", "admin"),
        ("GET", "/no/such/path", "admin"),
        ("GET", "/ws/asr", "admin"),
    ],
)
def test_what_is_not_in_the_table_is_for_operators(
    method: str, path: str, needed: str | None
) -> None:
    assert route_of({"type": "http", "method": method, "path": path}).needed == needed
    assert route_of({"type": "websocket", "path": "/ws/asr"}).needed == "transcribe"


def test_the_session_is_the_one_that_the_path_names() -> None:
    for path in ("/api/v1/session/abc", "/api/v1/asr/task/abc"):
        assert route_of({"type": "http", "method": "DELETE", "path": path}).session_id == "abc"
    assert route_of({"type": "http", "method": "GET", "path": "/metrics"}).session_id is None
