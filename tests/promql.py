"""As much of PromQL as the queries in deploy/ use, computed for a pipeline at rest, where no
counter moves."""

from __future__ import annotations

import math
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client.samples import Sample

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
"""Series and their values. A number is a vector of one series without labels, which is enough
where numbers are compared with aggregates."""

RANGE_FUNCTIONS = frozenset({"changes", "increase", "rate"})
AGGREGATIONS: dict[str, Callable[[Iterable[float]], float]] = {"max": max, "min": min, "sum": sum}
OPERATORS: list[dict[str, Callable[[float, float], float]]] = [
    {
        "==": lambda a, b: a if a == b else math.nan,
        ">": lambda a, b: a if a > b else math.nan,
    },
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": lambda a, b: a / b if b else math.nan},
]
"""By precedence, weakest first. A comparison that does not hold leaves nothing."""
_TOKEN = re.compile(r"\s*([A-Za-z_]\w*|\d+(?:\.\d+)?|\{[^}]*\}|\[[^\]]+\]|==|[-+*/()>,]|$)")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_NUMBER: Labels = frozenset()


class PromqlError(ValueError):
    """Not of the subset, so perhaps a mistake."""


@dataclass
class Query:
    """``value`` is what the expression gives for ``samples``; ``used`` are the metrics that it
    names, with every label that it names of each."""

    expression: str
    samples: Iterable[Sample] = ()
    used: list[tuple[str, set[str]]] = field(default_factory=list)
    value: Vector = field(init=False)

    def __post_init__(self) -> None:
        self._tokens = self._split()
        self.value = self._binary(0)
        if self._tokens:
            raise PromqlError(f"what is {self._tokens[0]}?")

    @property
    def fires(self) -> bool:
        return any(not math.isnan(value) for value in self.value.values())

    def _split(self) -> list[str]:
        tokens, place = [], 0
        while place < len(self.expression):
            found = _TOKEN.match(self.expression, place)
            if found is None:
                raise PromqlError(f"what is {self.expression[place:]}?")
            tokens.append(found[1])
            place = found.end()
        return [token for token in tokens if token]

    def _take(self, *expected: str) -> str:
        if not self._tokens or (expected and self._tokens[0] not in expected):
            raise PromqlError(f"{expected} expected in {self.expression}")
        return self._tokens.pop(0)

    def _next_is(self, *tokens: str) -> bool:
        return bool(self._tokens) and self._tokens[0] in tokens

    # ---------------------------------------------------------------------------------- expressions

    def _binary(self, level: int) -> Vector:
        if level == len(OPERATORS):
            return self._term()
        left = self._binary(level + 1)
        while self._next_is(*OPERATORS[level]):
            compute = OPERATORS[level][self._take()]
            left = _matched(compute, left, self._binary(level + 1))
        return left

    def _term(self) -> Vector:
        token = self._take()
        if token[0].isdigit():
            return {_NUMBER: float(token)}
        if token == "(":
            return self._closed()
        if token in AGGREGATIONS:
            return self._aggregated(AGGREGATIONS[token])
        if token in RANGE_FUNCTIONS:
            self._take("(")
            series = self._series(self._take())
            self._range()
            self._take(")")
            return dict.fromkeys(series, 0.0)
        if token == "histogram_quantile":
            self._take("(")
            self._binary(0)
            self._take(",")
            # Of nothing that was observed, whatever the buckets are.
            return dict.fromkeys(self._closed(), math.nan)
        if token == "time":
            self._take("(")
            self._take(")")
            return {_NUMBER: math.inf}
        if self._next_is("("):
            raise PromqlError(f"no function {token}")
        return self._series(token)

    def _closed(self) -> Vector:
        value = self._binary(0)
        self._take(")")
        return value

    def _range(self) -> None:
        if not re.fullmatch(r"\[(\d+[smh]|\$__rate_interval)\]", self._take()):
            raise PromqlError(f"a range is wanted in {self.expression}")

    def _aggregated(self, compute: Callable[[Iterable[float]], float]) -> Vector:
        by: set[str] = set()
        if self._next_is("by"):
            self._take()
            self._take("(")
            while not self._next_is(")"):
                by.add(self._take())
                if self._next_is(","):
                    self._take()
            self._take()
        self._take("(")
        first = len(self.used)
        groups: defaultdict[Labels, list[float]] = defaultdict(list)
        for labels, value in self._closed().items():
            groups[frozenset(pair for pair in labels if pair[0] in by)].append(value)
        for _, names in self.used[first:]:
            names |= by
        return {labels: compute(values) for labels, values in groups.items()}

    def _series(self, name: str) -> Vector:
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
            raise PromqlError(f"{name} is no metric")
        matchers = []
        if self._tokens and self._tokens[0][0] == "{":
            matchers = _MATCHER.findall(self._take())
        self.used.append((name, {label for label, _, _ in matchers}))
        return {
            frozenset(sample.labels.items()): sample.value
            for sample in self.samples
            if sample.name == name and all(_takes(sample.labels, *m) for m in matchers)
        }


def _takes(labels: dict[str, str], label: str, sign: str, wanted: str) -> bool:
    value = labels.get(label, "")
    same = re.fullmatch(wanted, value) is not None if "~" in sign else value == wanted
    return same == (sign[0] == "=")


def _matched(compute: Callable[[float, float], float], left: Vector, right: Vector) -> Vector:
    """One to one by labels, or each with a number."""
    if right.keys() == {_NUMBER}:
        return {labels: compute(value, right[_NUMBER]) for labels, value in left.items()}
    if left.keys() == {_NUMBER}:
        return {labels: compute(left[_NUMBER], value) for labels, value in right.items()}
    return {labels: compute(left[labels], right[labels]) for labels in left.keys() & right.keys()}
