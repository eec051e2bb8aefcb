"""Finds the function behind a route of the application, so that tests can call it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from gateway.server import Server
from gateway.web.app import create_app


def endpoint(server: object, path: str, method: str = "GET") -> Callable[..., Any]:
    app = create_app(cast(Server, server), {})
    found = [
        route
        for route in app.routes
        if getattr(route, "path", "") == path and method in getattr(route, "methods", ())
    ]
    return cast(Callable[..., Any], cast(Any, found[0]).endpoint)
