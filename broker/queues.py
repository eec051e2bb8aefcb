"""What waits for a worker, and whose turn it is. No clock: order is all there is here."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from broker.jobs import PendingJob
from broker.limits import ATTEMPTS_MAX, BULK_EVERY_ASSIGNMENTS, Limits

STALE_ENTRIES_MAX = 64
"""Heap entries of emptied flows kept beyond the number of flows; then the heap is rebuilt."""
SERVED_FLOWS_MAX = 20_000
"""Sessions with nothing waiting whose last start is remembered; beyond it the earliest goes."""


@dataclass(slots=True, eq=False)
class _Flow:
    """The waiting jobs of one session. ``start_ms``: virtual time at which the first may start."""

    start_ms: int
    jobs: OrderedDict[int, PendingJob] = field(default_factory=OrderedDict)


class FairQueue:
    """Fair between sessions by audio, in order within one; O(log sessions).

    Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): virtual time is the start of the
    job served last, a session's next start is its last plus what that cost, but not before virtual
    time, and the earliest start is served. So a session saves up no claim while it has nothing
    waiting; and what it owes is remembered, else one that sends its jobs one by one would pass by
    all that have two waiting.
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
        """The job whose turn it is, taken out."""
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
            # Its heap entry stays behind, recognised by having no jobs.
            self._retire(entry.job.session_id)
            if len(self._heap) > 2 * len(self._flows) + STALE_ENTRIES_MAX:
                self._heap = [item for item in self._heap if item[2].jobs]
                heapq.heapify(self._heap)

    @property
    def heap_length(self) -> int:
        return len(self._heap) + len(self._served_heap)

    def _push_flow(self, flow: _Flow) -> None:
        # The push count keeps equal starts in round robin, and flows from being compared.
        self._pushes += 1
        heapq.heappush(self._heap, (flow.start_ms, self._pushes, flow))

    def _retire(self, session_id: str) -> None:
        """The session has nothing waiting any more; remember what it owes while that matters."""
        flow = self._flows.pop(session_id)
        if not self._flows:
            # Nobody waits: nobody owes anybody anything.
            self._heap.clear()
            self._served.clear()
            self._served_heap.clear()
            self._virtual_ms = 0
            return
        self._served[session_id] = flow.start_ms
        heapq.heappush(self._served_heap, (flow.start_ms, session_id))
        while self._served_heap and (
            self._served_heap[0][0] <= self._virtual_ms or len(self._served_heap) > SERVED_FLOWS_MAX
        ):
            start_ms, session_id = heapq.heappop(self._served_heap)
            if self._served.get(session_id) == start_ms:
                del self._served[session_id]

    def validate(self) -> None:
        assert self._length == sum(len(flow.jobs) for flow in self._flows.values())
        waiting = [flow for _, _, flow in self._heap if flow.jobs]
        assert len(waiting) == len(self._flows) == len({id(flow) for flow in waiting})
        assert all(flow.jobs for flow in self._flows.values())
        assert len(self._served) <= len(self._served_heap) <= SERVED_FLOWS_MAX
        assert self._flows or not self.heap_length


class JobQueue:
    """Everything accepted and not assigned.

    First what was assigned before, in the order in which it came back: jobs of a worker that is
    gone. Then the lanes, live before bulk without starving it. Partials only when nothing else
    waits. A job before its last attempt, or after one that timed out, is set apart to run *alone*
    on its worker: whatever was with it when workers died or hung must not be lost with it again.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._live = FairQueue()
        self._bulk = FairQueue()
        self._retries: OrderedDict[int, PendingJob] = OrderedDict()
        self._alone: OrderedDict[int, PendingJob] = OrderedDict()
        self._partials: OrderedDict[int, PendingJob] = OrderedDict()
        self._live_since_bulk = 0
        self._length = 0
        self.audio_ms = 0
        self.bulk_audio_ms = 0
        """As much of ``audio_ms`` as stands behind the live lane."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[PendingJob]:
        yield from self._alone.values()
        yield from self._retries.values()
        yield from self._live
        yield from self._bulk
        yield from self._partials.values()

    @property
    def finals(self) -> int:
        """Jobs that any worker with a free credit may take, partials apart."""
        return len(self._retries) + len(self._live) + len(self._bulk)

    @property
    def oldest_partial(self) -> PendingJob | None:
        return next(iter(self._partials.values()), None)

    @property
    def bookkeeping_length(self) -> int:
        return self._live.heap_length + self._bulk.heap_length

    def fits(self, audio_ms: int) -> bool:
        """Whether one more job may come in. Jobs that come back always fit: they were in."""
        return (
            self.audio_ms + audio_ms <= self._limits.queue_audio_ms_max
            and len(self) < self._limits.queue_jobs_max
        )

    def push(self, entry: PendingJob) -> None:
        """A new job."""
        assert entry.place == "nowhere"
        if entry.job.partial:
            entry.place = "partial"
            self._partials[entry.job_id] = entry
        elif entry.job.lane == "live":
            entry.place = "live"
            self._live.push(entry)
        else:
            entry.place = "bulk"
            self._bulk.push(entry)
            self.bulk_audio_ms += entry.audio_ms
        self._enters(entry)

    def requeue(self, entry: PendingJob) -> None:
        """A job that its worker lost or gave back: at the front."""
        assert entry.place == "nowhere" and not entry.job.partial
        if entry.attempts_lost >= ATTEMPTS_MAX - 1 or entry.timed_out:
            entry.place = "alone"
            self._alone[entry.job_id] = entry
        else:
            entry.place = "retry"
            self._retries[entry.job_id] = entry
        self._enters(entry)

    def remove(self, entry: PendingJob) -> None:
        """Take out a job that is queued; the caller says where it goes."""
        if entry.place == "live":
            self._live.remove(entry)
        elif entry.place == "bulk":
            self._bulk.remove(entry)
        elif entry.place == "partial":
            del self._partials[entry.job_id]
        elif entry.place == "retry":
            del self._retries[entry.job_id]
        else:
            del self._alone[entry.job_id]
        self._leaves(entry)

    @property
    def waits_alone(self) -> bool:
        return bool(self._alone)

    def pop_alone(self) -> PendingJob:
        """The next job that needs a worker for itself; there must be one."""
        _, entry = self._alone.popitem(last=False)
        return self._leaves(entry)

    def pop(self, *, partials: bool) -> PendingJob | None:
        """The next job for any worker; ``partials``: whether it may be one."""
        if self._retries:
            _, entry = self._retries.popitem(last=False)
            return self._leaves(entry)
        final = self._pop_lane()
        if final is not None:
            return self._leaves(final)
        if partials and self._partials:
            _, entry = self._partials.popitem(last=False)
            return self._leaves(entry)
        return None

    def _pop_lane(self) -> PendingJob | None:
        bulk_is_due = self._live_since_bulk >= BULK_EVERY_ASSIGNMENTS - 1
        if self._live and not (bulk_is_due and self._bulk):
            self._live_since_bulk = self._live_since_bulk + 1 if self._bulk else 0
            return self._live.pop()
        self._live_since_bulk = 0
        return self._bulk.pop()

    def _enters(self, entry: PendingJob) -> None:
        self._length += 1
        self.audio_ms += entry.audio_ms

    def _leaves(self, entry: PendingJob) -> PendingJob:
        if entry.place == "bulk":
            self.bulk_audio_ms -= entry.audio_ms
        entry.place = "nowhere"
        self._length -= 1
        self.audio_ms -= entry.audio_ms
        return entry

    def validate(self) -> None:
        self._live.validate()
        self._bulk.validate()
        entries = list(self)
        assert len(entries) == len(self) == len({entry.job_id for entry in entries})
        assert self.audio_ms == sum(entry.audio_ms for entry in entries)
        assert self.bulk_audio_ms == sum(entry.audio_ms for entry in self._bulk)
        assert all(entry.place == "live" for entry in self._live)
        assert all(entry.place == "bulk" for entry in self._bulk)
        assert all(entry.place == "retry" for entry in self._retries.values())
        assert all(entry.place == "alone" for entry in self._alone.values())
        assert all(entry.place == "partial" for entry in self._partials.values())
