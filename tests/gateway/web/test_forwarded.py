"""Headers of reverse proxies, from addresses that are trusted and from others."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gateway.web.forwarded import Forwarded

HEADERS = [
    (b"x-forwarded-for", b"203.0.113.9, 198.51.100.7"),
    (b"x-forwarded-proto", b"https"),
    (b"X-Forwarded-Host", b"asr.example"),
    (b"host", b"inside"),
]


async def passed_on(trusted: str, client: tuple[str, int] | None) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def inner(scope: Any, _receive: Any, _send: Any) -> None:
        found.append(scope)

    scope = {"type": "http", "scheme": "http", "headers": [*HEADERS], "client": client}
    await Forwarded(cast(Any, inner), trusted)(scope, cast(Any, None), cast(Any, None))
    return found[0]


@pytest.mark.parametrize("client", [("192.0.2.1", 5), None])
async def test_nobody_else_is_believed(client: tuple[str, int] | None) -> None:
    scope = await passed_on("127.0.0.1,10.0.0.0/8", client)
    assert (scope["client"], scope["scheme"]) == (client, "http")
    assert {name.lower() for name, _ in scope["headers"]} == {
        *(b"x-forwarded-for", b"x-forwarded-proto", b"host")
    }


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::ffff:10.1.2.3"])
async def test_the_last_address_that_is_not_trusted_is_the_client(address: str) -> None:
    scope = await passed_on("127.0.0.1,10.0.0.0/8", (address, 5))
    assert (scope["client"][0], scope["scheme"]) == ("198.51.100.7", "https")
    assert len(scope["headers"]) == len(HEADERS)
    scope = await passed_on("127.0.0.1,10.0.0.0/8,198.51.100.0/24", (address, 5))
    assert scope["client"][0] == "203.0.113.9"


async def test_a_client_has_one_address_on_sockets_of_both_families() -> None:
    scope = await passed_on("127.0.0.1", ("::ffff:192.0.2.1", 5))
    assert scope["client"] == ("192.0.2.1", 5)
    scope = await passed_on("::ffff:10.0.0.0/104", ("::ffff:10.1.2.3", 5))
    assert scope["client"][0] == "198.51.100.7"
