"""Drift of a long run: its first part against its last one, as pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tools.lab.loadtest.figures import percentile
from tools.lab.loadtest.samples import Sample
from tools.lab.loadtest.user import Outcome

SPAN_S = 300.0
"""Length of the two parts that are compared, without restarts. A run shorter than three parts has
no drift."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A quantity that must not grow."""

    what: str
    first: float
    last: float

    @property
    def growth_percent(self) -> float:
        """Infinite if it was zero in the first part only."""
        if self.first == self.last:
            return 0.0
        return 100.0 * (self.last / self.first - 1.0) if self.first else math.inf


def span_s(restart_every_s: float | None) -> float:
    """Length of the two parts. With restarts it is the number of whole intervals between them that
    is nearest to ``SPAN_S``, at least one, so that each process is restarted as often in both."""
    if restart_every_s is None:
        return SPAN_S
    return restart_every_s * max(1, round(SPAN_S / restart_every_s))


def drifts(
    outcomes: Sequence[Outcome], samples: Sequence[Sample], restart_every_s: float | None = None
) -> list[Drift]:
    """Compare parts of the time in which all sessions speak, from the last one's start to the first
    one's end. Samples are compared by their medians. Empty for a run that is too short.

    With restarts, both parts begin at a multiple of the interval, hence with the same restart. The
    first part begins after one interval, because the run does not begin with a restart.
    """
    done = [outcome for outcome in outcomes if outcome.status == "succeeded"]
    begin_s = max((outcome.began_s for outcome in done), default=0.0)
    end_s = min((outcome.ended_s for outcome in done), default=0.0)
    if restart_every_s is not None:
        begin_s = restart_every_s * max(1, math.ceil(begin_s / restart_every_s))
        end_s = restart_every_s * math.floor(end_s / restart_every_s)
    part_s = span_s(restart_every_s)
    if end_s - begin_s < 3 * part_s:
        return []
    spans = ((begin_s, begin_s + part_s), (end_s - part_s, end_s))

    def compared(what: str, value: Callable[[float, float], float]) -> Drift:
        first, last = (value(*span) for span in spans)
        return Drift(what, first, last)

    def latencies(percent: float) -> Callable[[float, float], float]:
        return lambda from_s, until_s: percentile(
            [ms for o in done for at_s, ms in o.segment_ms if from_s <= at_s < until_s], percent
        )

    def sampled(value: Callable[[Sample], float]) -> Callable[[float, float], float]:
        return lambda from_s, until_s: percentile(
            [value(sample) for sample in samples if from_s <= sample.at_s < until_s], 50
        )

    found = [
        compared(f"segment end → result, p{percent:.0f}, ms", latencies(percent))
        for percent in (50, 95)
    ]
    for kind in sorted(samples[-1].rss_mb) if samples else []:
        found += [
            compared(f"memory of {kind}, MB", sampled(partial(_memory_mb, kind))),
            compared("allocated, MB", sampled(partial(_anonymous_mb, kind))),
            compared(f"descriptors of {kind}", sampled(partial(_descriptors, kind))),
        ]
    waiting = sampled(lambda sample: float(sample.queue.get("queued") or 0))
    return [
        *found,
        compared("jobs waiting in the queue", waiting),
        compared("the machine: a fixed computation, µs", sampled(lambda s: s.yardstick_us)),
    ]


def _memory_mb(kind: str, sample: Sample) -> float:
    return sample.rss_mb.get(kind, 0.0)


def _anonymous_mb(kind: str, sample: Sample) -> float:
    return sample.anonymous_mb.get(kind, 0.0)


def _descriptors(kind: str, sample: Sample) -> float:
    return float(sample.descriptors.get(kind, 0))


def table(found: Sequence[Drift], restart_every_s: float | None = None) -> list[str]:
    """A Markdown table; empty without drifts."""
    if not found:
        return []
    minutes = f"{span_s(restart_every_s) / 60:.3g} minutes"
    if restart_every_s is not None:
        minutes += " with the same restarts"
    return [
        f"| | first {minutes} | last {minutes} | growth |",
        "| --- | --- | --- | --- |",
        *(
            f"| {each.what} | {each.first:.0f} | {each.last:.0f} | {each.growth_percent:+.1f} % |"
            for each in found
        ),
    ]
