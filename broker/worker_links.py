"""Core: the capacity of the links to the workers on other hosts, and the trials that measure it.

Each job is a mark (``runtime.link_rate``): the worker reports with its result for how long it has
held the job. While no job is in transit, ``Mark`` messages with padding try the links.

All links count as one, because they usually share the broker's own link. Trials therefore go to the
workers in turn. If one of several workers has a narrow link of its own, the trials of the others
do not queue, and its own are too rare to count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from broker.events import Action, Send
from broker.jobs import PendingJob
from runtime.link_rate import TRIAL_BYTES, LinkRate, LinkUse
from wire.messages import Mark, MarkArrived, WorkerResult

_Key = tuple[int, int] | tuple[Literal["mark"], int]
"""Job id and attempt, or the number of a ``Mark``."""


class WorkerLinks:
    def __init__(self, act: Callable[[Action], None]) -> None:
        self._act = act
        self._rate = LinkRate()
        self._answering: deque[bytes] = deque()
        """Workers that answer a ``Mark``; the next trial is for the first one."""
        self._marks = 0

    def use(self, now_s: float) -> LinkUse:
        return self._rate.use(now_s)

    def connected(self, worker: bytes, *, answers_marks: bool, now_s: float) -> None:
        """There is a new connection. A first mark without padding shows how long the way takes."""
        self.lost(worker)
        if answers_marks:
            self._answering.append(worker)
            self._send_mark(worker, 0, now_s)

    def lost(self, worker: bytes) -> None:
        """The worker is not registered any more."""
        self._rate.forget(worker)
        if worker in self._answering:
            self._answering.remove(worker)

    def assigned(self, worker: bytes, entry: PendingJob, now_s: float) -> None:
        self._rate.note_sent(len(entry.job.pcm), now_s)
        self._rate.note_mark((entry.job_id, entry.attempt), now_s, receiver=worker)

    def answered(self, answer: WorkerResult, now_s: float) -> None:
        arrived_s = None if answer.held_ms is None else now_s - answer.held_ms / 1000
        self._note_arrival((answer.job_id, answer.attempt), arrived_s, now_s)

    def taken_back(self, entry: PendingJob) -> None:
        """The attempt of ``entry`` was lost, or returned, or is overdue."""
        self._rate.drop((entry.job_id, entry.attempt))

    def arrived(self, mark: MarkArrived, now_s: float, *, late: bool) -> None:
        """``late``: the answer came some time before ``now_s``."""
        self._note_arrival(("mark", mark.number), None if late else now_s, now_s)

    def turn(self, now_s: float) -> None:
        """Send a trial if one is due."""
        if self._answering and self._rate.trial_due(now_s):
            self._answering.rotate(-1)
            self._send_mark(self._answering[-1], TRIAL_BYTES, now_s)

    def _note_arrival(self, key: _Key, arrived_s: float | None, now_s: float) -> None:
        if arrived_s is None:
            self._rate.drop(key)
        else:
            self._rate.note_arrival(key, arrived_s, now_s, same_clock=True)

    def _send_mark(self, worker: bytes, size: int, now_s: float) -> None:
        self._marks += 1
        self._act(Send("back", worker, Mark(number=self._marks, padding=bytes(size))))
        self._rate.note_sent(size, now_s, trial=True)
        self._rate.note_mark(("mark", self._marks), now_s, receiver=worker)
