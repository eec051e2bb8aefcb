"""The number of connections without a session."""

from __future__ import annotations

from gateway.admission.idle import IdleConnections


def refused(idle: IdleConnections, address: str) -> str:
    refusal = idle.refusal(address)
    return refusal.message if refusal is not None else ""


def test_connections_of_one_address_and_of_all_are_limited() -> None:
    idle = IdleConnections(total_max=3, per_address_max=2)
    idle.add("a", 2)
    assert refused(idle, "a") == "2 connections without a session are open from this address"
    assert not refused(idle, "b")
    idle.add("b", 1)
    assert refused(idle, "c") == "3 connections without a session are open"
    idle.add("a", -1)
    assert not refused(idle, "a") and idle.total == 2


def test_zero_is_no_limit() -> None:
    idle = IdleConnections(total_max=0, per_address_max=0)
    idle.add("a", 10_000)
    assert not refused(idle, "a")


def test_an_address_without_connections_takes_no_memory() -> None:
    idle = IdleConnections(total_max=3, per_address_max=2)
    idle.add("a", 1)
    idle.add("a", -1)
    assert not idle._by_address
