"""Routes whose surroundings are hard to bring about with real processes; the rest is tested in
tests/integration."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.app import create_app
from gateway.hub import Hub
from persistence.reads import StoreUnavailable
from tests.gateway.session_driver import SessionDriver, silence


class NoDatabase:
    async def session(self, _session_id: str) -> None:
        raise StoreUnavailable("the database does not answer")


def endpoint(hub: object, path: str) -> Callable[..., Any]:
    app = create_app(cast(Hub, hub), {})
    found = [route for route in app.routes if getattr(route, "path", "") == path]
    return cast(Callable[..., Any], cast(Any, found[0]).endpoint)


async def test_a_live_session_is_shown_without_the_database() -> None:
    driver = SessionDriver()
    driver.start()
    driver.chunk(silence(500))
    hub = SimpleNamespace(reader=NoDatabase(), sessions={"s": driver})
    show = endpoint(hub, "/api/v1/session/{session_id}")
    answer = await show(session_id="s")
    assert answer["live"] and answer["duration"] == 0.5 and answer["chunks"] == []
    with pytest.raises(StoreUnavailable):
        await show(session_id="other")
