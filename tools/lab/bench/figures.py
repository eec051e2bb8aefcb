"""A figure of a benchmark, its reference from the same run, and its promise if it has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    what: str
    value: float
    unit: str
    reference: str
    """The comparison measured in the same run, with its value."""
    at_least: float | None = None
    at_most: float | None = None
    points: tuple[tuple[float, float], ...] = ()
    """Points of the plot; empty without one."""
    labels: tuple[str, ...] = ()
    """Names of the points, where x only counts them."""

    @property
    def kept(self) -> bool | None:
        """Whether the promise is kept; None without a promise."""
        if self.at_least is not None:
            return self.value >= self.at_least
        if self.at_most is not None:
            return self.value <= self.at_most
        return None

    @property
    def shown(self) -> str:
        """The value with its unit."""
        digits = 0 if self.value >= 100 else 1 if self.value >= 10 else 2
        return f"{self.value:,.{digits}f} {self.unit}"

    @property
    def promise(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:,g}"
        return "" if self.at_most is None else f"≤ {self.at_most:,g}"

    @property
    def verdict(self) -> str:
        """The promise, and whether it was kept."""
        word = {None: "", True: "kept", False: "not kept"}[self.kept]
        return f"{self.promise} {word}".strip()
