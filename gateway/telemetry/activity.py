"""SANS-IO: what a gateway saw in the last quarter of an hour, for people who look at it now.

Time is cut into slots; a slot holds counts, the highest values, and a histogram of latencies, so
that memory does not grow with the load. What must be kept for longer is Prometheus's business.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SLOT_S = 10.0
SLOTS_MAX = 90
"""15 minutes; an older slot is forgotten."""
WORKERS_MAX = 1_024
"""Workers told apart in a slot; what one more recognised counts, but in no worker's row."""

_BOUNDS_MS = tuple(round(5 * 1.15**n, 3) for n in range(1, 70))
"""Upper bounds of the histogram's buckets, 6 ms to 77 s: percentiles are right to 15 %."""


@dataclass(slots=True)
class WorkerFigures:
    """What one worker did, partials included."""

    results: int = 0
    failures: int = 0
    audio_ms: int = 0
    busy_ms: float = 0.0
    """Time in batches; of a batch that other gateways share, only this gateway's part."""
    batches: float = 0.0
    batch_jobs_max: int = 0

    def add(self, other: WorkerFigures) -> None:
        self.results += other.results
        self.failures += other.failures
        self.audio_ms += other.audio_ms
        self.busy_ms += other.busy_ms
        self.batches += other.batches
        self.batch_jobs_max = max(self.batch_jobs_max, other.batch_jobs_max)

    @property
    def batch_jobs_mean(self) -> float:
        return self.results / self.batches if self.batches else 0.0

    @property
    def rtfx(self) -> float:
        """Seconds of audio recognised in a second of work."""
        return self.audio_ms / self.busy_ms if self.busy_ms else 0.0


@dataclass(slots=True)
class Slot:
    """``SLOT_S`` seconds."""

    number: int
    """Of slots since the clock's zero."""
    latencies: Counter[int] = field(default_factory=Counter)
    """By bucket."""
    results: int = 0
    failures: int = 0
    audio_ms: int = 0
    sessions_max: int = 0
    queued_max: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    workers: dict[str, WorkerFigures] = field(default_factory=dict)


class Activity:
    """Tell it what happens; ``slots`` is what was told in the last quarter of an hour."""

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque(maxlen=SLOTS_MAX)

    def note_latency(self, waited_s: float, now_s: float) -> None:
        """A segment has its result, this long after its job was first sent."""
        self._slot(now_s).latencies[bisect.bisect_left(_BOUNDS_MS, waited_s * 1000)] += 1

    def note_result(
        self,
        *,
        partial: bool,
        failed: bool,
        audio_ms: int,
        worker_id: str,
        infer_ms: int,
        batch_jobs: int,
        now_s: float,
    ) -> None:
        slot = self._slot(now_s)
        if worker_id:
            share = 1 / max(1, batch_jobs)
            figures = WorkerFigures(
                1, int(failed), audio_ms, infer_ms * share, share, max(1, batch_jobs)
            )
            if worker_id in slot.workers or len(slot.workers) < WORKERS_MAX:
                slot.workers.setdefault(worker_id, WorkerFigures()).add(figures)
        if partial:
            return
        slot.results += 1
        slot.failures += failed
        slot.audio_ms += audio_ms

    def note_refusal(self, code: str, now_s: float) -> None:
        self._slot(now_s).refused[code] += 1

    def note_level(self, *, sessions: int, queued: int, now_s: float) -> None:
        slot = self._slot(now_s)
        slot.sessions_max = max(slot.sessions_max, sessions)
        slot.queued_max = max(slot.queued_max, queued)

    def slots(self, now_s: float) -> list[Slot]:
        """``SLOTS_MAX`` slots, the present one last; empty ones where nothing was told."""
        last = self._slot(now_s).number
        told = {slot.number: slot for slot in self._slots}
        numbers = range(last - SLOTS_MAX + 1, last + 1)
        return [told.get(number) or Slot(number) for number in numbers]

    def _slot(self, now_s: float) -> Slot:
        number = int(now_s // SLOT_S)
        if not self._slots or self._slots[-1].number < number:
            self._slots.append(Slot(number))
        return self._slots[-1]


def percentile_ms(slots: Iterable[Slot], share: float) -> float | None:
    """The latency that ``share`` of the results did not exceed; None without results."""
    latencies: Counter[int] = Counter()
    for slot in slots:
        latencies.update(slot.latencies)
    needed = math.ceil(share * latencies.total())
    for bucket in sorted(latencies):
        needed -= latencies[bucket]
        if needed <= 0:
            return _BOUNDS_MS[min(bucket, len(_BOUNDS_MS) - 1)]
    return None


def workers_of(slots: Sequence[Slot]) -> dict[str, tuple[WorkerFigures, float]]:
    """Each worker's figures of all ``slots`` together, and how long ago, in seconds and to a
    slot, it was last heard of."""
    found: dict[str, tuple[WorkerFigures, float]] = {}
    for slot in slots:
        age_s = (slots[-1].number - slot.number) * SLOT_S
        for worker_id, figures in slot.workers.items():
            total, _ = found.get(worker_id, (WorkerFigures(), 0.0))
            total.add(figures)
            found[worker_id] = (total, age_s)
    return found
