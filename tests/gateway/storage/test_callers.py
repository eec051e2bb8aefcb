"""Callers have no limits unless their token names some."""

from __future__ import annotations

from gateway.storage.callers import NO_LIMITS, NOBODY, TokenLimits


def test_a_caller_without_a_token_has_no_limits() -> None:
    assert NOBODY.limits == NO_LIMITS == TokenLimits()
    assert (NOBODY.token_name, NOBODY.tenant) == ("", "default")
