"""SIGKILL to processes in random order, under continuous verified load."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable

import psutil

from tools.lab.chaos.rows import Watch, settle
from tools.lab.chaos.system import System
from tools.lab.loadtest.load import Load

KINDS = ("asr_worker", "broker", "gateway", "persistence", "postgres", "valkey")
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
    show: Callable[[str], None],
) -> tuple[list[str], dict[str, object]]:
    """Keep ``sessions`` sessions open for ``minutes``, and spread ``kills`` over that time.

    Returns:
        Problems, and figures for the report.
    """
    rng = random.Random(seed)
    system.wait_all_ready()
    watch = Watch(system)
    span_s = 60.0 * minutes
    total = max(sessions, round(sessions * span_s / SPEECH_S))
    load = Load(
        system.websocket_url,
        sessions=total,
        duration_s=SPEECH_S,
        ramp_s=span_s,
        seed=seed,
        ended=watch.ended,
    )
    killed = _kill_all(system, rng, load, kills, span_s, show)
    outcomes = load.wait(SPEECH_S + END_S_MAX)
    left = settle(system, HEAL_S_MAX)
    figures = {
        "seed": seed,
        "kills": dict(killed),
        "sessions": total,
        "succeeded": sum(o.status == "succeeded" for o in outcomes),
        "resumes": sum(o.resumes for o in outcomes),
        "stored in time": sum(o.stored for o in outcomes),
    }
    return [*left, *watch.problems(outcomes, total)], figures


def _kill_all(
    system: System,
    rng: random.Random,
    load: Load,
    kills: int,
    span_s: float,
    show: Callable[[str], None],
) -> Counter[str]:
    killed: Counter[str] = Counter()
    for number in range(kills):
        at_s = load.began_s + span_s * (number + 0.5) / kills
        time.sleep(max(0.0, at_s - time.monotonic()))
        kind = rng.choice(KINDS)
        victim = _kill_one(system, rng, kind)
        killed[kind] += 1
        show(f"{number + 1} of {kills}: {kind} {victim.pid}")
    return killed


def _kill_one(system: System, rng: random.Random, kind: str) -> psutil.Process:
    """Kill one process of the kind, once there is one: it may be restarting."""
    while True:
        processes = system.living(kind)
        if processes:
            # The oldest of PostgreSQL is its server; the others serve its connections.
            victim = processes[0] if kind == "postgres" else rng.choice(processes)
            # It may end by itself before the signal.
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
                return victim
        time.sleep(0.1)
