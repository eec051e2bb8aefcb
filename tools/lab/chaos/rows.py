"""One row of the report: a fault at a moment, under verified load, and what the oracle says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tools.lab.chaos import observe, oracle
from tools.lab.chaos.faults import FAULTS, LATER_S_MAX, REFERENCE, Fault
from tools.lab.chaos.load import Load, longest_pause_s, slowest_ms
from tools.lab.chaos.system import System
from tools.lab.loadtest.user import Outcome

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
    skipped: str = ""
    """Why nothing was tried; such a row neither holds nor fails."""

    @property
    def holds(self) -> bool:
        return not (self.problems or self.skipped)


class Rows:
    """Runs rows on one system."""

    def __init__(self, system: System, seed: int, tell: Callable[[str], None]) -> None:
        self._system = system
        self._seed = seed
        self._tell = tell
        self._reference_ms: float | None = None

    def run(self, fault: Fault, moment: Moment) -> Row:
        """The first must be ``REFERENCE``, if a fault is to go unnoticed."""
        system = self._system
        if fault.small_disks and system.no_small_disks:
            return Row(fault.name, moment, 0, skipped=f"no small disks: {system.no_small_disks}")
        system.wait_ready()
        self._settle()
        before = observe.resources(system)
        committed: dict[str, bool | None] = {}

        def ended(outcome: Outcome) -> None:
            if outcome.stored:
                committed[outcome.session_id] = observe.is_committed(system, outcome.session_id)

        self._seed += 1
        row = Row(fault.name, moment, SESSIONS)
        if moment == "idle":
            row.problems += self._hurt(fault)
        load = Load(
            system.websocket_url,
            sessions=SESSIONS,
            duration_s=SPEECH_S,
            ramp_s=0.0 if moment == "last chunk" else RAMP_S,
            seed=self._seed,
            ended=ended,
        )
        hurt_s = self._at_moment(load, fault, row)
        outcomes = load.wait(END_S_MAX)
        ended_s = time.monotonic()
        row.problems += self._settle()
        row.settled_s = time.monotonic() - ended_s
        row.resumes = sum(outcome.resumes for outcome in outcomes)
        row.stored = sum(outcome.stored for outcome in outcomes)
        self._judge(row, outcomes, committed, before)
        if moment == "mid-job":
            row.pause_s = longest_pause_s(outcomes, hurt_s, hurt_s + WATCHED_S)
            row.slowest_ms = slowest_ms(outcomes, hurt_s, hurt_s + WATCHED_S)
            if fault is REFERENCE:
                self._reference_ms = row.slowest_ms
            row.problems += late(fault, row, self._reference_ms)
        return row

    def _at_moment(self, load: Load, fault: Fault, row: Row) -> float:
        """Hurt when it is time; returns when, in seconds since the load began."""
        moment = row.moment
        if moment == "idle":
            return 0.0
        at_s = SPEECH_S - 0.1 if moment == "last chunk" else MID_JOB_S
        time.sleep(max(0.0, load.began_s + at_s - time.monotonic()))
        if moment == "reconnecting":
            self._system.proxies["client-gateway"].hang_up()
            time.sleep(BETWEEN_S / 5)
        hurt_s = time.monotonic() - load.began_s
        row.problems += self._hurt(fault)
        if moment == "twice":
            time.sleep(BETWEEN_S)
            row.problems += self._hurt(fault)
        return hurt_s

    def _hurt(self, fault: Fault) -> list[str]:
        self._tell(f"{fault.name}: now")
        began_s = time.monotonic()
        try:
            fault.inject(self._system)
            found = fault.check(self._system)
            time.sleep(max(0.0, began_s + fault.hold_s - time.monotonic()))
        finally:
            fault.heal(self._system)
        return found

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


def late(fault: Fault, row: Row, reference_ms: float | None) -> list[str]:
    """What a fault promises of times, and did not keep."""
    found = []
    if fault.pause_s_max is not None and row.pause_s > fault.pause_s_max:
        found.append(f"no text for {row.pause_s:.1f} s, promised {fault.pause_s_max:g} s")
    if fault.unnoticed:
        if reference_ms is None:
            found.append("there is no row without a fault to compare with")
        elif row.slowest_ms > reference_ms + LATER_S_MAX * 1000:
            found.append(
                f"the slowest text took {row.slowest_ms:.0f} ms, {reference_ms:.0f} ms without"
            )
    return found


def quick_set() -> list[tuple[Fault, Moment]]:
    """Every kind of process once, at the moment at which most is under way."""
    moments: dict[str, Moment] = {
        "worker hangs": "mid-job",
        "all workers killed": "last chunk",
        "gateway SIGTERM": "last chunk",
        "gateway kill": "twice",
    }
    chosen = [fault for fault in FAULTS if not fault.full_only]
    return [(fault, moments.get(fault.name, "mid-job")) for fault in chosen]


def full_set() -> list[tuple[Fault, Moment]]:
    return [(fault, moment) for fault in FAULTS for moment in MOMENTS]
