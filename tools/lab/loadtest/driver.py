"""The body of a generator process: many users on one event loop, woken by one clock."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tools.lab.loadtest.speech import Speech
from tools.lab.loadtest.user import Behaviour, Outcome, User

TURN_S = 0.005
"""Least time between two turns. Chunks that fell due since the last turn are sent together."""


@dataclass(slots=True)
class Progress:
    """Progress of a run; cheap to compute and to send to another process."""

    waiting: int = 0
    active: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    refusals: int = 0
    resumes: int = 0
    recent_segment_ms: list[float] = field(default_factory=list)
    recent_final_ms: list[float] = field(default_factory=list)


class Driver:
    """Runs users, each from its start time on. ``run`` returns when all have ended."""

    def __init__(
        self,
        speeches: Sequence[tuple[str, float, Callable[[], Speech]]],
        behaviour: Behaviour,
        *,
        began_s: float,
        ended: Callable[[Outcome], None] | None = None,
    ) -> None:
        """``speeches``: session id, start time in seconds from ``began_s`` (monotonic), and a
        factory of its speech, called at that time. ``ended`` is called for each session as it
        ends."""
        self._on_ended = ended
        self._behaviour = behaviour
        self._began_s = began_s
        self._order = itertools.count()
        self._due: list[tuple[float, int, User | int]] = []
        self._speeches = speeches
        self._users: dict[str, User] = {}
        self._left = len(speeches)
        self._changed = asyncio.Event()
        self._asleep_until_s = 0.0
        self._stopping = False
        self.outcomes: list[Outcome] = []
        self.latest_wakening_ms = 0.0
        """The most by which the generator was late: above some ms, it is the bottleneck."""
        for number, (_, begin_s, _) in enumerate(speeches):
            heapq.heappush(self._due, (began_s + begin_s, next(self._order), number))

    async def run(self) -> list[Outcome]:
        while self._left and not self._stopping:
            self._changed.clear()
            now_s = time.monotonic()
            while self._due and self._due[0][0] <= now_s:
                due_s, _, what = heapq.heappop(self._due)
                self.latest_wakening_ms = max(self.latest_wakening_ms, (now_s - due_s) * 1000)
                if isinstance(what, User):
                    what.turn(now_s)
                else:
                    self._begin(what)
            wait_s = max(TURN_S, self._due[0][0] - now_s) if self._due else 1.0
            self._asleep_until_s = now_s + wait_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
        for user in list(self._users.values()):
            user.give_up("the run was stopped")
        return self.outcomes

    def stop(self) -> None:
        """End the run. Sessions in progress fail."""
        self._stopping = True
        self._changed.set()

    def progress(self) -> Progress:
        users = self._users.values()
        progress = Progress(
            waiting=self._left - sum(user.active for user in users),
            active=sum(user.active for user in users),
            refusals=sum(user.outcome.refusals for user in users),
            resumes=sum(user.outcome.resumes for user in users),
        )
        for outcome in self.outcomes:
            progress.ended[outcome.status] = progress.ended.get(outcome.status, 0) + 1
            progress.refusals += outcome.refusals
            progress.resumes += outcome.resumes
        for user in users:
            progress.recent_segment_ms += [ms for _, ms in user.outcome.segment_ms[-1:]]
        progress.recent_final_ms = [
            outcome.final_ms for outcome in self.outcomes[-100:] if outcome.final_ms is not None
        ]
        return progress

    def _begin(self, number: int) -> None:
        session_id, _, make_speech = self._speeches[number]
        user = User(
            session_id,
            make_speech(),
            self._behaviour,
            run_began_s=self._began_s,
            wake=self._wake,
            ended=self._ended,
        )
        self._users[session_id] = user
        user.begin()

    def _wake(self, user: User, at_s: float) -> None:
        heapq.heappush(self._due, (at_s, next(self._order), user))
        if at_s < self._asleep_until_s - TURN_S:
            self._changed.set()

    def _ended(self, user: User) -> None:
        del self._users[user.outcome.session_id]
        self.outcomes.append(user.outcome)
        if self._on_ended is not None:
            self._on_ended(user.outcome)
        self._left -= 1
        if not self._left:
            self._changed.set()


def cpu_s() -> float:
    """Processor time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
