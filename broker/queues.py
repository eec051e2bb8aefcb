"""Core: jobs that wait for a worker, and their order."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from broker import limits as limit
from broker.jobs import Location, PendingJob


@dataclass(slots=True, eq=False)
class _Flow:
    """The waiting jobs of one session. ``start_ms`` is the virtual start time of the first."""

    start_ms: int
    jobs: OrderedDict[int, PendingJob] = field(default_factory=OrderedDict)


LATER: frozenset[Location] = frozenset({"bulk", "partial"})
"""Queues whose jobs wait for all others."""


class FairQueue:
    """Fair between sessions by audio, in order within one; O(log sessions).

    Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996). Virtual time is the start time of
    the job served last. The start time of a session's next job is that of its last job plus the
    cost of that, but not before virtual time. The earliest start time is served. An idle session
    earns no credit. Its start time is kept while ahead of virtual time; otherwise one-at-a-time
    senders would overtake sessions with two jobs waiting.
    """

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._heap: list[tuple[int, int, _Flow]] = []
        self._served: dict[str, int] = {}
        self._served_heap: list[tuple[int, str]] = []
        self._virtual_ms = 0
        self._pushes = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[PendingJob]:
        for flow in self._flows.values():
            yield from flow.jobs.values()

    def push(self, entry: PendingJob) -> None:
        session_id = entry.job.session_id
        flow = self._flows.get(session_id)
        if flow is None:
            start_ms = max(self._virtual_ms, self._served.get(session_id, 0))
            flow = self._flows[session_id] = _Flow(start_ms)
            self._push_flow(flow)
        flow.jobs[entry.job_id] = entry
        self._length += 1

    def pop(self) -> PendingJob | None:
        """Remove and return the next job."""
        while self._heap:
            start_ms, _, flow = heapq.heappop(self._heap)
            if not flow.jobs:
                continue
            _, entry = flow.jobs.popitem(last=False)
            self._length -= 1
            self._virtual_ms = start_ms
            flow.start_ms = start_ms + entry.audio_ms
            if flow.jobs:
                self._push_flow(flow)
            else:
                self._retire(entry.job.session_id)
            return entry
        return None

    def remove(self, entry: PendingJob) -> None:
        flow = self._flows[entry.job.session_id]
        del flow.jobs[entry.job_id]
        self._length -= 1
        if not flow.jobs:
            # The heap entry stays; it is stale because its flow has no jobs.
            self._retire(entry.job.session_id)
            if len(self._heap) > 2 * len(self._flows) + limit.STALE_HEAP_ENTRIES_MAX:
                self._heap = [item for item in self._heap if item[2].jobs]
                heapq.heapify(self._heap)

    def _push_flow(self, flow: _Flow) -> None:
        # The push count serves equal start times in round robin, and orders without flows.
        self._pushes += 1
        heapq.heappush(self._heap, (flow.start_ms, self._pushes, flow))

    def _retire(self, session_id: str) -> None:
        """Remove a session without waiting jobs. Remember its start time while that matters."""
        flow = self._flows.pop(session_id)
        if not self._flows:
            # Without waiting jobs there is no session to be fair to.
            self._heap.clear()
            self._served.clear()
            self._served_heap.clear()
            self._virtual_ms = 0
            return
        self._served[session_id] = flow.start_ms
        heapq.heappush(self._served_heap, (flow.start_ms, session_id))
        while self._served_heap and (
            self._served_heap[0][0] <= self._virtual_ms
            or len(self._served_heap) > limit.SERVED_FLOWS_MAX
        ):
            start_ms, session_id = heapq.heappop(self._served_heap)
            if self._served.get(session_id) == start_ms:
                del self._served[session_id]


class JobQueue:
    """The jobs of one model that are accepted and not assigned.

    Jobs that come back from workers are first, in the order of their return. The lanes follow, live
    before bulk without starving it. Partial jobs are assigned only when no other live job waits. A
    job before its last attempt, or after an attempt that timed out, must run *exclusively* on its
    worker, so that other jobs are not lost with it again if it kills or hangs the worker.
    """

    def __init__(self, limits: limit.Limits) -> None:
        self._limits = limits
        self._live = FairQueue()
        self._bulk = FairQueue()
        self._retries: OrderedDict[int, PendingJob] = OrderedDict()
        self._exclusive: OrderedDict[int, PendingJob] = OrderedDict()
        self._partials: OrderedDict[int, PendingJob] = OrderedDict()
        self._lanes: dict[Location, FairQueue] = {"live": self._live, "bulk": self._bulk}
        self._fifos: dict[Location, OrderedDict[int, PendingJob]] = {
            "exclusive": self._exclusive,
            "retry": self._retries,
            "partial": self._partials,
        }
        self._live_since_bulk = 0
        self._length = 0
        self.audio_ms = 0
        self.urgent_audio_ms = 0
        """The part of ``audio_ms`` that goes before the bulk lane and partial jobs."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[PendingJob]:
        yield from self._exclusive.values()
        yield from self._retries.values()
        yield from self._live
        yield from self._bulk
        yield from self._partials.values()

    @property
    def finals(self) -> int:
        """Number of live and returned final jobs that any worker with a free credit may take."""
        return len(self._retries) + len(self._live)

    @property
    def urgent_jobs(self) -> int:
        """Number of jobs that go before the bulk lane and partial jobs."""
        return len(self._exclusive) + len(self._retries) + len(self._live)

    @property
    def oldest_partial(self) -> PendingJob | None:
        return next(iter(self._partials.values()), None)

    def admits(self, audio_ms: int, models: int) -> bool:
        """Whether the queue has room for a new job: each of ``models`` has an equal share of the
        limits, so that jobs without workers leave room for others. An empty queue has room, and
        returned jobs are always admitted."""
        return not len(self) or (
            self.audio_ms + audio_ms <= self._limits.queue_audio_ms_max // models
            and len(self) < self._limits.queue_jobs_max // models
        )

    def push(self, entry: PendingJob) -> None:
        self._add(entry, "partial" if entry.job.partial else entry.job.lane)

    def requeue(self, entry: PendingJob) -> None:
        """Add a job that its worker lost or returned, at the front."""
        assert not entry.job.partial
        alone = entry.charged >= limit.ATTEMPTS_MAX - 1 or entry.timed_out
        self._add(entry, "exclusive" if alone else "retry")

    def move(self, entry: PendingJob, to: JobQueue) -> None:
        """Move a queued job to the same location of another queue."""
        location = entry.location
        self.remove(entry)
        to._add(entry, location)

    def remove(self, entry: PendingJob) -> None:
        """Remove a queued job. The caller assigns it or ends it."""
        if entry.location in self._lanes:
            self._lanes[entry.location].remove(entry)
        else:
            del self._fifos[entry.location][entry.job_id]
        self._removed(entry)

    @property
    def has_exclusive(self) -> bool:
        return bool(self._exclusive)

    def pop_exclusive(self) -> PendingJob:
        """Remove and return the next job that must run exclusively. There must be one."""
        _, entry = self._exclusive.popitem(last=False)
        return self._removed(entry)

    def pop(self, *, bulk: bool, partials: bool) -> PendingJob | None:
        """Remove and return the next job for any worker. Without ``bulk`` it is no bulk job that is
        not due, and without ``partials`` no partial job."""
        entry: PendingJob | None = None
        bulk_is_due = self._bulk_is_due()
        if self._retries:
            _, entry = self._retries.popitem(last=False)
        elif self._live and not bulk_is_due:
            self._live_since_bulk = self._live_since_bulk + 1 if self._bulk else 0
            entry = self._live.pop()
        elif partials and self._partials and not bulk_is_due:
            _, entry = self._partials.popitem(last=False)
        elif bulk or bulk_is_due:
            self._live_since_bulk = 0
            entry = self._bulk.pop()
        return None if entry is None else self._removed(entry)

    def _bulk_is_due(self) -> bool:
        due = self._live_since_bulk >= limit.BULK_EVERY_ASSIGNMENTS - 1
        return due and bool(self._bulk)

    def _add(self, entry: PendingJob, location: Location) -> None:
        assert entry.location == "nowhere"
        entry.location = location
        if location in self._lanes:
            self._lanes[location].push(entry)
        else:
            self._fifos[location][entry.job_id] = entry
        self._length += 1
        self.audio_ms += entry.audio_ms
        if location not in LATER:
            self.urgent_audio_ms += entry.audio_ms

    def _removed(self, entry: PendingJob) -> PendingJob:
        if entry.location not in LATER:
            self.urgent_audio_ms -= entry.audio_ms
        entry.location = "nowhere"
        self._length -= 1
        self.audio_ms -= entry.audio_ms
        return entry
