"""A figure, its promise and its verdict."""

from __future__ import annotations

from tools.lab.bench.figures import Figure


def figure(*, at_least: float | None = None, at_most: float | None = None) -> Figure:
    return Figure(
        what="speed",
        value=10.0,
        unit="m/s",
        reference="another",
        at_least=at_least,
        at_most=at_most,
    )


def test_promises() -> None:
    assert figure().kept is None
    assert figure(at_least=10.0).kept is True
    assert figure(at_least=10.1).kept is False
    assert figure(at_most=10.0).kept is True
    assert figure(at_most=9.9).kept is False
    assert figure(at_most=9.9).verdict == "≤ 9.9 not kept"
    assert figure().shown == "10.0 m/s"
