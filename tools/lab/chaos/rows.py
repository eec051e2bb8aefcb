"""One row of the report: a fault at a moment, under verified load, and the oracle's verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tools.lab.chaos import oracle
from tools.lab.chaos.faults import FAULTS, LATER_S_MAX, REFERENCE, Fault
from tools.lab.chaos.system import System
from tools.lab.harness import database, usage
from tools.lab.loadtest.load import Load, longest_pause_s, slowest_ms
from tools.lab.loadtest.user import Outcome

Moment = Literal["idle", "mid-job", "last chunk", "reconnecting", "twice"]
MOMENTS: tuple[Moment, ...] = ("idle", "mid-job", "last chunk", "reconnecting", "twice")

SESSIONS = 24
SPEECH_S = 12.0
RAMP_S = 1.0
MID_JOB_S = 5.0
BETWEEN_S = 1.5
"""From a lost connection, or from the first of two faults, to the fault."""
HEAL_S_MAX = 30.0
END_S_MAX = 120.0
WATCHED_S = 20.0
"""Time after the fault in which silences and latencies count as its effect."""


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
    """Why the fault was not injected; such a row neither holds nor fails."""
    late_at_first: list[str] = field(default_factory=list)
    """The limits on time that a first try exceeded; the row is then the second try."""

    @property
    def holds(self) -> bool:
        return not (self.problems or self.skipped)


class Watch:
    """Input of the oracle: usage before the fault, and each commit at the moment at which the
    client received ``stored: true``."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._before = usage.usage(system.family())
        self._committed: dict[str, bool | None] = {}

    def ended(self, outcome: Outcome) -> None:
        """Call it when a session has ended."""
        if outcome.stored:
            self._committed[outcome.session_id] = self._system.is_completed(outcome.session_id)

    def problems(self, outcomes: list[Outcome], sessions: int) -> list[str]:
        """Everything that is wrong, once the system is at rest."""
        ids = [outcome.session_id for outcome in outcomes]
        stored = database.stored_sessions(self._system.database_url, ids)
        return [
            *oracle.texts_wrong(outcomes, sessions),
            *oracle.rows_wrong(outcomes, stored),
            *oracle.promises_broken(self._committed, stored),
            *oracle.leaks(self._before, usage.usage(self._system.family())),
        ]


def settle(system: System, timeout_s: float = HEAL_S_MAX) -> list[str]:
    """Wait until the queue is empty and the gauges are zero; return the ones that are not."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        left = oracle.left_over(system.queue(), system.gauges())
        if not left or time.monotonic() > deadline_s:
            return left
        time.sleep(0.2)


class Rows:
    """Runs rows on one system."""

    def __init__(self, system: System, seed: int, show: Callable[[str], None]) -> None:
        self._system = system
        self._seed = seed
        self._show = show
        self._reference_ms: float | None = None

    def run(self, fault: Fault, moment: Moment) -> Row:
        """``REFERENCE`` must run first if a fault has ``unnoticed``.

        A row that only exceeded a limit on time runs once more, after a new reference: other
        programs on this machine may have delayed it.
        """
        row = self._try(fault, moment)
        exceeded = late(fault, row, self._reference_ms)
        if exceeded and not row.problems:
            self._show(f"once more: {'; '.join(exceeded)}")
            if fault.unnoticed:
                self._try(REFERENCE, "mid-job")
            row = self._try(fault, moment)
            row.late_at_first = exceeded
            exceeded = late(fault, row, self._reference_ms)
        row.problems += exceeded
        return row

    def _try(self, fault: Fault, moment: Moment) -> Row:
        system = self._system
        if fault.small_disks and system.no_small_disks:
            return Row(fault.name, moment, 0, skipped=f"no small disks: {system.no_small_disks}")
        system.wait_all_ready()
        settle(system)
        watch = Watch(system)
        self._seed += 1
        row = Row(fault.name, moment, SESSIONS)
        if moment == "idle":
            row.problems += self._inject(fault)
        load = Load(
            system.websocket_url,
            sessions=SESSIONS,
            duration_s=SPEECH_S,
            ramp_s=0.0 if moment == "last chunk" else RAMP_S,
            seed=self._seed,
            ended=watch.ended,
        )
        injected_s = self._at_moment(load, fault, row)
        outcomes = load.wait(END_S_MAX)
        ended_s = time.monotonic()
        row.problems += settle(system)
        row.settled_s = time.monotonic() - ended_s
        row.resumes = sum(outcome.resumes for outcome in outcomes)
        row.stored = sum(outcome.stored for outcome in outcomes)
        row.problems += watch.problems(outcomes, SESSIONS)
        if moment == "mid-job":
            row.pause_s = longest_pause_s(outcomes, injected_s, injected_s + WATCHED_S)
            row.slowest_ms = slowest_ms(outcomes, injected_s, injected_s + WATCHED_S)
            if fault is REFERENCE:
                self._reference_ms = row.slowest_ms
        return row

    def _at_moment(self, load: Load, fault: Fault, row: Row) -> float:
        """Inject the fault at its moment; return when, in seconds since the load began."""
        moment = row.moment
        if moment == "idle":
            return 0.0
        at_s = SPEECH_S - 0.1 if moment == "last chunk" else MID_JOB_S
        time.sleep(max(0.0, load.began_s + at_s - time.monotonic()))
        if moment == "reconnecting":
            self._system.proxies["client-gateway"].hang_up()
            time.sleep(BETWEEN_S / 5)
        injected_s = time.monotonic() - load.began_s
        row.problems += self._inject(fault)
        if moment == "twice":
            time.sleep(BETWEEN_S)
            row.problems += self._inject(fault)
        return injected_s

    def _inject(self, fault: Fault) -> list[str]:
        self._show(f"{fault.name}: now")
        began_s = time.monotonic()
        try:
            fault.inject(self._system)
            found = fault.check(self._system)
            time.sleep(max(0.0, began_s + fault.hold_s - time.monotonic()))
        finally:
            fault.heal(self._system)
        return found


def late(fault: Fault, row: Row, reference_ms: float | None) -> list[str]:
    """The limits on time that the fault has and the row exceeds. They hold mid-job only."""
    if row.moment != "mid-job" or row.skipped:
        return []
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
    """Every kind of process once, at the moment when most is in progress."""
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
