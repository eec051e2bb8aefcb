"""kill -9 of one process after another, in random order, while sessions come and go."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable

import psutil

from tools.lab.chaos import observe, oracle
from tools.lab.chaos.load import Load
from tools.lab.chaos.system import System
from tools.lab.loadtest.user import Outcome

KINDS = ("worker", "broker", "gateway", "persistence", "postgres", "redis")
SPEECH_S = 30.0
END_S_MAX = 180.0
HEAL_S_MAX = 60.0


def run(
    system: System,
    *,
    kills: int,
    minutes: float,
    sessions: int,
    seed: int,
    tell: Callable[[str], None],
) -> tuple[list[str], dict[str, object]]:
    """``sessions`` at a time for ``minutes``, with ``kills`` spread over them.

    Returns:
        What is wrong, and figures for the report.
    """
    rng = random.Random(seed)
    system.wait_ready()
    before = observe.resources(system)
    committed: dict[str, bool | None] = {}

    def ended(outcome: Outcome) -> None:
        if outcome.stored:
            committed[outcome.session_id] = observe.is_committed(system, outcome.session_id)

    span_s = 60.0 * minutes
    total = max(sessions, round(sessions * span_s / SPEECH_S))
    load = Load(
        system.websocket_url,
        sessions=total,
        duration_s=SPEECH_S,
        ramp_s=span_s,
        seed=seed,
        ended=ended,
    )
    killed = _kill_all(system, rng, load, kills, span_s, tell)
    outcomes = load.wait(SPEECH_S + END_S_MAX)
    deadline_s = time.monotonic() + HEAL_S_MAX
    while (left := oracle.left_over(system.queue(), observe.gauges(system))) and (
        time.monotonic() < deadline_s
    ):
        time.sleep(0.2)
    stored = observe.stored_sessions(system, [o.session_id for o in outcomes])
    told = {
        session_id: stored[session_id].status == "completed" if seen is None else seen
        for session_id, seen in committed.items()
        if seen is not None or session_id in stored
    }
    problems = [
        *oracle.texts_wrong(outcomes, total),
        *oracle.rows_wrong(outcomes, stored),
        *oracle.promises_broken(told),
        *left,
        *oracle.leaks(before, observe.resources(system)),
    ]
    figures = {
        "seed": seed,
        "kills": dict(killed),
        "sessions": total,
        "succeeded": sum(o.status == "succeeded" for o in outcomes),
        "resumes": sum(o.resumes for o in outcomes),
        "told stored": sum(o.stored for o in outcomes),
    }
    return problems, figures


def _kill_all(
    system: System,
    rng: random.Random,
    load: Load,
    kills: int,
    span_s: float,
    tell: Callable[[str], None],
) -> Counter[str]:
    killed: Counter[str] = Counter()
    for number in range(kills):
        at_s = load.began_s + span_s * (number + 0.5) / kills
        time.sleep(max(0.0, at_s - time.monotonic()))
        kind = rng.choice(KINDS)
        victim = _kill_one(system, rng, kind)
        killed[kind] += 1
        tell(f"{number + 1} of {kills}: {kind} {victim.pid}")
    return killed


def _kill_one(system: System, rng: random.Random, kind: str) -> psutil.Process:
    """Whichever is there; as soon as one is, while it is being restarted."""
    while True:
        processes = system.processes(kind)
        if processes:
            victim = rng.choice(processes)
            # One of PostgreSQL's may end by itself between the look and the blow.
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                return victim
        time.sleep(0.1)
