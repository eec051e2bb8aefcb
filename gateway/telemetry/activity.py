"""Core: activity of a gateway in the last 15 minutes, for the dashboard.

Time is divided into slots. A slot holds counts, maxima, and a histogram of latencies, so memory
does not grow with the load. Prometheus keeps the longer history.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from wire.messages import Result

SLOT_S = 10.0
SLOTS_MAX = 90
"""15 minutes. Older slots are dropped."""
WORKERS_MAX = 1_024
"""Workers with figures of their own in a slot. Results of further ones count in the totals only."""
ERROR_CODES_MAX = 32
"""Codes with counts of their own in a slot: a worker can send any code. Further ones count as
``other``."""

_BOUNDS_MS = tuple(round(5 * 1.15**n, 3) for n in range(1, 70))
"""Upper bounds of the histogram's buckets, 6 ms to 77 s. Percentiles are accurate to 15 %."""


class WorkerFigures(Struct):
    """Figures of one worker, partial results included."""

    results: int = 0
    failures: int = 0
    audio_ms: int = 0
    busy_ms: float = 0.0
    """Time in batches; of a batch shared with other gateways, this gateway's part."""
    batches: float = 0.0
    batch_jobs_max: int = 0
    seen_s: float = 0.0
    """Age of its last result, rounded to slots."""

    def add(self, other: WorkerFigures) -> None:
        self.results += other.results
        self.failures += other.failures
        self.audio_ms += other.audio_ms
        self.busy_ms += other.busy_ms
        self.batches += other.batches
        self.batch_jobs_max = max(self.batch_jobs_max, other.batch_jobs_max)
        self.seen_s = min(self.seen_s, other.seen_s)

    @property
    def batch_jobs_mean(self) -> float:
        return self.results / self.batches if self.batches else 0.0

    @property
    def rtfx(self) -> float:
        """Inverse real-time factor: seconds of audio recognised per second of work."""
        return self.audio_ms / self.busy_ms if self.busy_ms else 0.0


@dataclass(slots=True)
class Slot:
    """The figures of ``SLOT_S`` seconds."""

    number: int
    """Slots since the zero of the clock."""
    latencies: Counter[int] = field(default_factory=Counter)
    """Results by bucket of the histogram."""
    results: int = 0
    failures: int = 0
    audio_ms: int = 0
    sessions_max: int = 0
    queued_max: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Failed utterances by code."""
    workers: dict[str, WorkerFigures] = field(default_factory=dict)


class Activity:
    """Feed it with the ``note_…`` methods; ``slots`` returns the last 15 minutes."""

    def __init__(self) -> None:
        self._slots: deque[Slot] = deque(maxlen=SLOTS_MAX)

    def note_latency(self, waited_s: float, now_s: float) -> None:
        """A segment has its result, this long after its job was first sent."""
        self._slot(now_s).latencies[bisect.bisect_left(_BOUNDS_MS, waited_s * 1000)] += 1

    def note_result(self, result: Result, now_s: float) -> None:
        slot = self._slot(now_s)
        audio_ms, failed = result.end_ms - result.start_ms, result.error is not None
        worker_id = result.worker_id
        if worker_id and (worker_id in slot.workers or len(slot.workers) < WORKERS_MAX):
            jobs = max(1, result.batch_jobs)
            figures = WorkerFigures(1, failed, audio_ms, result.infer_ms / jobs, 1 / jobs, jobs)
            slot.workers.setdefault(worker_id, WorkerFigures()).add(figures)
        if not result.partial:
            slot.results += 1
            slot.failures += failed
            if result.error is not None:
                code = result.error.code
                known = code in slot.errors or len(slot.errors) < ERROR_CODES_MAX
                slot.errors[code if known else "other"] += 1
            slot.audio_ms += audio_ms

    def note_refusal(self, code: str, now_s: float) -> None:
        self._slot(now_s).refused[code] += 1

    def note_level(self, *, sessions: int, queued: int, now_s: float) -> None:
        slot = self._slot(now_s)
        slot.sessions_max = max(slot.sessions_max, sessions)
        slot.queued_max = max(slot.queued_max, queued)

    def slots(self, now_s: float) -> list[Slot]:
        """Return ``SLOTS_MAX`` slots, the current one last. Slots without activity are empty."""
        last = self._slot(now_s).number
        known = {slot.number: slot for slot in self._slots}
        numbers = range(last - SLOTS_MAX + 1, last + 1)
        return [known.get(number) or Slot(number) for number in numbers]

    def _slot(self, now_s: float) -> Slot:
        number = int(now_s // SLOT_S)
        if not self._slots or self._slots[-1].number < number:
            self._slots.append(Slot(number))
        return self._slots[-1]


def percentile_ms(slots: Iterable[Slot], share: float) -> float | None:
    """Return the latency that ``share`` of the results did not exceed; None without results."""
    latencies: Counter[int] = Counter()
    for slot in slots:
        latencies.update(slot.latencies)
    needed = math.ceil(share * latencies.total())
    for bucket in sorted(latencies):
        needed -= latencies[bucket]
        if needed <= 0:
            return _BOUNDS_MS[min(bucket, len(_BOUNDS_MS) - 1)]
    return None


def workers_of(slots: Sequence[Slot]) -> dict[str, WorkerFigures]:
    """Return each worker's figures over all ``slots``, which end with the current one."""
    last = slots[-1].number
    return summed_workers(
        {
            worker_id: replace(figures, seen_s=(last - slot.number) * SLOT_S)
            for worker_id, figures in slot.workers.items()
        }
        for slot in slots
    )


def summed_workers(parts: Iterable[Mapping[str, WorkerFigures]]) -> dict[str, WorkerFigures]:
    found: dict[str, WorkerFigures] = {}
    for part in parts:
        for worker_id, figures in part.items():
            if worker_id in found:
                found[worker_id].add(figures)
            else:
                found[worker_id] = replace(figures)
    return found
