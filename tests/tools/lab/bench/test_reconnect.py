"""A crowd against a scripted gateway."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from tests.tools.lab.loadtest.scripted import Gateway, serving
from tools.lab.bench import reconnect


async def test_refused_connections_retry() -> None:
    gateway = Gateway([], refusals=2)
    async with serving(gateway) as url:
        opened = await reconnect._open(url, 5)
        assert len(opened) == 5 and gateway.upgrades == 7
        reconnect._drop(opened)


async def test_every_answer_of_a_storm_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "CONNECTIONS", 10)
    gateway = Gateway([], refusals=0)
    async with serving(gateway) as url:
        opened = await reconnect._open(url, 2)
        gateway.upgrades, gateway.refusals = 0, 3
        gateway.refusal_status = HTTPStatus.BAD_GATEWAY
        back, answers, _ = await reconnect._storm(url, opened)
        assert answers == {"HTTP 502": 3, "served": 7}
        reconnect._drop(back)
