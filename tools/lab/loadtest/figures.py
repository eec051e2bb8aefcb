"""Counts, percentiles and verdict of a run, as pure functions of its outcomes."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.lab.loadtest.user import Outcome

COME_IN_S = 1.0
"""A session that is admitted within this time of its first attempt was not kept waiting."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """The largest number of half-open spans (begin, end) that overlap at any time."""
    steps = sorted(step for begin, end in spans for step in ((begin, 1), (end, -1)))
    return max(itertools.accumulate((step for _, step in steps), initial=0))


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of one kind of latency, ms."""

    name: str
    count: int
    p50: float
    p95: float
    p99: float
    highest: float


def latency(name: str, values: Iterable[float]) -> Latency:
    kept = list(values)
    p50, p95, p99 = (percentile(kept, percent) for percent in (50, 95, 99))
    return Latency(name, len(kept), p50, p95, p99, max(kept, default=math.nan))


@dataclass(frozen=True, slots=True)
class Targets:
    """Latencies that a run must not exceed for the verdict *holds*."""

    final_p95_ms: float = 1_000.0
    segment_p95_ms: float = 1_500.0


@dataclass(slots=True)
class Summary:
    sessions: int
    statuses: dict[str, int]
    reasons: dict[str, int]
    refusals: int
    at_once: int
    """The most sessions that were admitted at any time."""
    offered_at_once: int
    """``at_once`` if each session had been admitted within ``COME_IN_S``."""
    resumes: int
    stored: int
    audio_s: float
    rtf_p50: float
    latencies: list[Latency]
    wrong: list[tuple[str, str, str]] = field(default_factory=list)
    """Session id, expected text, received text."""

    @property
    def texts_right(self) -> bool:
        """At least one session was admitted, and every admitted session has exactly its text."""
        wrong = self.statuses.get("wrong_text", 0) + self.statuses.get("failed", 0)
        return not wrong and self.statuses.get("succeeded", 0) > 0

    def latency(self, name: str) -> Latency:
        return next(found for found in self.latencies if found.name == name)

    def holds(self, targets: Targets) -> bool:
        """All sessions were admitted, as many at once as were offered; all texts are right; and
        latencies are within the targets."""
        final, segment = self.latency("finish → final"), self.latency("segment end → result")
        return (
            self.statuses.get("succeeded", 0) == self.sessions
            and self.at_once >= self.offered_at_once
            and final.p95 <= targets.final_p95_ms
            and segment.p95 <= targets.segment_p95_ms
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "sessions": self.sessions,
            "statuses": self.statuses,
            "reasons": self.reasons,
            "refusals": self.refusals,
            "at_once": self.at_once,
            "offered_at_once": self.offered_at_once,
            "resumes": self.resumes,
            "stored": self.stored,
            "audio_s": round(self.audio_s, 1),
            "rtf_p50": _finite(self.rtf_p50),
            "latencies": {
                found.name: {
                    "count": found.count,
                    "p50_ms": _finite(found.p50),
                    "p95_ms": _finite(found.p95),
                    "p99_ms": _finite(found.p99),
                    "max_ms": _finite(found.highest),
                }
                for found in self.latencies
            },
            "wrong": [list(wrong) for wrong in self.wrong],
        }


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def summary(outcomes: Sequence[Outcome]) -> Summary:
    """The figures of a run. Percentiles are over all admitted sessions."""
    done = [outcome for outcome in outcomes if outcome.status == "succeeded"]
    at_once = most_at_once((o.came_in_s, o.ended_s) for o in outcomes if o.came_in_s is not None)
    offered = most_at_once(
        (o.began_s + COME_IN_S, o.began_s + o.spoken_in_s)
        for o in outcomes
        if o.spoken_in_s > COME_IN_S
    )
    return Summary(
        sessions=len(outcomes),
        statuses=dict(Counter(str(outcome.status) for outcome in outcomes)),
        reasons=dict(Counter(outcome.reason for outcome in outcomes if outcome.reason)),
        refusals=sum(outcome.refusals for outcome in outcomes),
        at_once=at_once,
        # A session that waits for its last result is there for longer than it speaks.
        offered_at_once=max(at_once, offered),
        resumes=sum(outcome.resumes for outcome in outcomes),
        stored=sum(outcome.stored for outcome in outcomes),
        audio_s=sum(outcome.audio_s for outcome in done),
        rtf_p50=percentile([(o.ended_s - o.began_s) / o.audio_s for o in done if o.audio_s], 50),
        latencies=[
            latency("chunk ack", (ms for o in outcomes for _, ms in o.ack_ms)),
            latency("segment end → result", (ms for o in outcomes for _, ms in o.segment_ms)),
            latency("finish → final", (o.final_ms for o in outcomes if o.final_ms is not None)),
            latency("start → first partial", (o.first_partial_ms for o in outcomes if o.partials)),
            latency("connect → 503", (ms for o in outcomes for ms in o.refused_after_ms)),
        ],
        wrong=[
            (outcome.session_id, outcome.expected, outcome.text)
            for outcome in outcomes
            if outcome.status == "wrong_text"
        ],
    )


def difference(expected: str, received: str) -> str:
    """Mark the words that differ, as ``one [-two-] {+three+} four``. CJK characters are words."""
    left, right = _words(expected), _words(received)
    pieces: list[str] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces += left[a:b] if b - a <= 6 else [*left[a : a + 3], "…", *left[b - 3 : b]]
            continue
        if b > a:
            pieces.append(f"[-{' '.join(left[a:b])}-]")
        if d > c:
            pieces.append(f"{{+{' '.join(right[c:d])}+}}")
    return " ".join(pieces)


def _words(text: str) -> list[str]:
    return re.findall(r"[\x21-\x7e]+|\S", text)
