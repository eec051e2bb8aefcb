"""Routes whose surroundings are hard to bring about with real processes; the rest is tested in
tests/integration."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi import Response, WebSocket

from gateway.server import Server
from gateway.web.routes import _origin_allowed, create_app
from persistence.reads import StoreUnavailable
from tests.gateway.session_driver import SessionDriver, silence


class NoDatabase:
    async def session(self, _session_id: str) -> None:
        raise StoreUnavailable("the database does not answer")

    status = session


def endpoint(server: object, path: str, method: str = "GET") -> Callable[..., Any]:
    app = create_app(cast(Server, server), {})
    found = [
        route
        for route in app.routes
        if getattr(route, "path", "") == path and method in getattr(route, "methods", ())
    ]
    return cast(Callable[..., Any], cast(Any, found[0]).endpoint)


async def test_a_live_session_is_shown_without_the_database() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(silence(500))
    server = SimpleNamespace(reader=NoDatabase(), sessions={"s": driver})
    show = endpoint(server, "/api/v1/session/{session_id}")
    answer = await show(session_id="s")
    assert answer["live"] and answer["duration"] == 0.5 and answer["chunks"] == []
    with pytest.raises(StoreUnavailable):
        await show(session_id="other")


async def test_deletions_that_nobody_can_check_have_a_limit() -> None:
    deleted: list[str] = []

    async def delete(session_id: str) -> bool:
        deleted.append(session_id)
        return False

    server = SimpleNamespace(
        reader=NoDatabase(),
        is_here=lambda session_id: session_id == "ended here",
        delete=delete,
        storage_backlog_full=False,
    )
    ask = endpoint(server, "/api/v1/session/{session_id}", "DELETE")
    response = Response()
    assert await ask("one", response) == {"session_id": "one", "deleted": False}
    assert response.status_code == 202
    server.storage_backlog_full = True
    with pytest.raises(StoreUnavailable):
        await ask("two", Response())
    await ask("ended here", Response())
    assert deleted == ["one", "ended here"]


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "http://", "\u00ff"])
def test_an_origin_that_is_none_is_not_ours(origin: str) -> None:
    websocket = SimpleNamespace(headers={"origin": origin, "host": "here"})
    assert not _origin_allowed(cast(WebSocket, websocket), "http://there")
