"""The client of a request: its token and its tenant."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from starlette.requests import HTTPConnection

from gateway.web.auth import TokenCheck
from gateway.web.caller import caller_of, has_token
from tests.gateway.web.test_auth import TOKEN, allowing, bearer, holding, request


async def test_a_request_has_the_tenant_of_its_token(tmp_path: Path) -> None:
    found: list[tuple[str, bool]] = []

    async def inner(scope: Any, _receive: Any, _send: Any) -> None:
        connection = HTTPConnection(scope)
        found.append((caller_of(connection).tenant, has_token(connection)))

    check = TokenCheck(inner, holding(tmp_path, tenant="acme"), None, allowing)
    await check(request("/v1/models", "GET", bearer(TOKEN)), cast(Any, None), cast(Any, None))
    await inner(request("/v1/models"), None, None)
    assert found == [("acme", True), ("default", False)]
