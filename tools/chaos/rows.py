"""One row of the report: a fault at a moment, under verified load, and what the oracle says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tools.chaos import observe, oracle
from tools.chaos.faults import BY_NAME, Fault
from tools.chaos.load import Load, longest_pause_s, slowest_ms
from tools.chaos.system import System
from tools.loadtest.user import Outcome

Moment = Literal["idle", "mid-job", "last chunk", "reconnecting", "twice"]
MOMENTS: tuple[Moment, ...] = ("idle", "mid-job", "last chunk", "reconnecting", "twice")

SESSIONS = 24
SPEECH_S = 12.0
RAMP_S = 1.0
MID_JOB_S = 5.0
BETWEEN_S = 1.5
"""Between a lost connection, or a first fault, and the fault."""
HEAL_S_MAX = 30.0
END_S_MAX = 120.0
WATCHED_S = 20.0
"""From the fault on, how long silences and latencies count as its effect."""


@dataclass(slots=True)
class Row:
    fault: str
    moment: Moment
    sessions: int
    problems: list[str] = field(default_factory=list)
    pause_s: float = 0.0
    slowest_ms: float = 0.0
    resumes: int = 0
    stored: int = 0
    settled_s: float = 0.0
    """From the end of the last session until everything was stored and at rest."""

    @property
    def holds(self) -> bool:
        return not self.problems


class Rows:
    """Runs rows on one system."""

    def __init__(self, system: System, seed: int, tell: Callable[[str], None]) -> None:
        self._system = system
        self._seed = seed
        self._tell = tell

    def run(self, fault: Fault, moment: Moment) -> Row:
        system = self._system
        system.wait_ready()
        self._settle()
        before = observe.resources(system)
        committed: dict[str, bool | None] = {}

        def ended(outcome: Outcome) -> None:
            if outcome.stored:
                committed[outcome.session_id] = observe.is_committed(system, outcome.session_id)

        self._seed += 1
        if moment == "idle":
            self._hurt(fault)
        load = Load(
            system.websocket_url,
            sessions=SESSIONS,
            duration_s=SPEECH_S,
            ramp_s=0.0 if moment == "last chunk" else RAMP_S,
            seed=self._seed,
            ended=ended,
        )
        hurt_s = self._at_moment(load, fault, moment)
        outcomes = load.wait(END_S_MAX)
        row = Row(fault.name, moment, SESSIONS)
        ended_s = time.monotonic()
        row.problems += self._settle()
        row.settled_s = time.monotonic() - ended_s
        row.resumes = sum(outcome.resumes for outcome in outcomes)
        row.stored = sum(outcome.stored for outcome in outcomes)
        self._judge(row, outcomes, committed, before)
        if moment == "mid-job":
            row.pause_s = longest_pause_s(outcomes, hurt_s, hurt_s + WATCHED_S)
            row.slowest_ms = slowest_ms(outcomes, hurt_s, hurt_s + WATCHED_S)
            if fault.pause_s_max is not None and row.pause_s > fault.pause_s_max:
                row.problems.append(
                    f"no text for {row.pause_s:.1f} s, promised {fault.pause_s_max:g} s"
                )
        return row

    def _at_moment(self, load: Load, fault: Fault, moment: Moment) -> float:
        """Hurt when it is time; returns when, in seconds since the load began."""
        if moment == "idle":
            return 0.0
        at_s = SPEECH_S - 0.1 if moment == "last chunk" else MID_JOB_S
        time.sleep(max(0.0, load.began_s + at_s - time.monotonic()))
        if moment == "reconnecting":
            self._system.proxies["client-gateway"].hang_up()
            time.sleep(BETWEEN_S / 5)
        hurt_s = time.monotonic() - load.began_s
        self._hurt(fault)
        if moment == "twice":
            time.sleep(BETWEEN_S)
            self._hurt(fault)
        return hurt_s

    def _hurt(self, fault: Fault) -> None:
        self._tell(f"{fault.name}: now")
        fault.inject(self._system)
        time.sleep(fault.hold_s)
        fault.heal(self._system)

    def _settle(self) -> list[str]:
        """Wait until queue and counters are at rest; returns what is not."""
        deadline_s = time.monotonic() + HEAL_S_MAX
        while True:
            left = oracle.left_over(self._system.queue(), observe.gauges(self._system))
            if not left or time.monotonic() > deadline_s:
                return left
            time.sleep(0.2)

    def _judge(
        self,
        row: Row,
        outcomes: list[Outcome],
        committed: dict[str, bool | None],
        before: oracle.Resources,
    ) -> None:
        system = self._system
        stored = observe.stored_sessions(system, [o.session_id for o in outcomes])
        told = {
            # A database that was away when the client was told is asked now.
            session_id: stored[session_id].status == "completed" if seen is None else seen
            for session_id, seen in committed.items()
            if seen is not None or session_id in stored
        }
        row.problems += oracle.texts_wrong(outcomes, SESSIONS)
        row.problems += oracle.rows_wrong(outcomes, stored)
        row.problems += oracle.promises_broken(told)
        row.problems += oracle.leaks(before, observe.resources(system))


def quick_set() -> list[tuple[Fault, Moment]]:
    """Every kind of process once, at the moment at which most is under way."""
    moments: dict[str, Moment] = {
        "worker hangs": "mid-job",
        "all workers killed": "last chunk",
        "gateway SIGTERM": "last chunk",
        "gateway kill": "twice",
    }
    return [(f, moments.get(f.name, "mid-job")) for f in BY_NAME.values() if not f.full_only]


def full_set() -> list[tuple[Fault, Moment]]:
    return [(fault, moment) for fault in BY_NAME.values() for moment in MOMENTS]
