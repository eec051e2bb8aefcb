"""Processor time of each process for a second of audio, under live sessions on the whole system.

The kernel counts the time. Batches grow with the load, so an idle system would say nothing about
it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict

from tools.lab.bench.figures import Figure
from tools.lab.harness.stack import Stack, supervised_stack
from tools.lab.harness.usage import usage
from tools.lab.loadtest.load import Load, audio_s

SESSIONS = 300
WARM_UP_S = 12.0
"""From the first session's start to the measurement. Sessions start one after the other in half of
it."""
MEASURED_S = 12.0
END_S_MAX = 120.0
PROMISED_MS = 3.0
"""Of all processes but the load generator: 500 sessions on two cores leave 4 ms, and the generator
takes 0.8 of them."""
_PROCESS = "processor time of: "
_GENERATOR = "load generator"


def cpu_s_by_kind(stack: Stack) -> dict[str, float]:
    """Processor time so far, by kind of process."""
    taken: defaultdict[str, float] = defaultdict(float)
    for process in usage(stack.family(), other="other"):
        taken[process.kind] += process.cpu_s
    taken[_GENERATOR] = time.process_time()
    return taken


def measure() -> list[Figure]:
    settings = {"ASR_MODEL": "demo", "ASR_THREADS": "1", "LOG_LEVEL": "error"}
    with supervised_stack(settings) as stack:
        load = Load(
            stack.url(),
            sessions=SESSIONS,
            duration_s=WARM_UP_S + MEASURED_S,
            ramp_s=WARM_UP_S / 2,
            seed=1,
            binary=False,
        )
        time.sleep(WARM_UP_S)
        from_s, before = time.monotonic() - load.began_s, cpu_s_by_kind(stack)
        time.sleep(MEASURED_S)
        until_s, after = time.monotonic() - load.began_s, cpu_s_by_kind(stack)
        outcomes = load.wait(END_S_MAX)
    sent_s = audio_s(outcomes, from_s, until_s)
    taken_ms = {kind: 1000 * (after[kind] - before.get(kind, 0.0)) / sent_s for kind in after}
    right = sum(outcome.status == "succeeded" for outcome in outcomes)
    return figures(taken_ms, sent_s / (until_s - from_s), right)


def figures(taken_ms: dict[str, float], live: float, right: int) -> list[Figure]:
    """``taken_ms``: milliseconds for a second of audio by kind of process; ``live``: sessions that
    spoke during the measurement; ``right``: sessions with the right text."""
    generator_ms = taken_ms.pop(_GENERATOR)
    rows = [
        Figure(what=f"{_PROCESS}{kind}", value=value, unit="ms/s", reference="")
        for kind, value in sorted(taken_ms.items(), key=lambda each: -each[1])
    ]
    total_ms = sum(taken_ms.values())
    cores = os.cpu_count() or 1
    total = Figure(
        what=f"all processes, for a second of audio of {live:.0f} live sessions",
        value=total_ms,
        unit="ms/s",
        reference=f"{right} of {SESSIONS} texts right; load generator: {generator_ms:.2f} ms/s; "
        f"{cores} cores without it would carry {cores * 1000 / total_ms:,.0f} sessions, with it "
        f"{cores * 1000 / (total_ms + generator_ms):,.0f}",
        at_most=PROMISED_MS,
        points=tuple((float(n), row.value) for n, row in enumerate(rows)),
        labels=tuple(row.what.removeprefix(_PROCESS) for row in rows),
    )
    return [*rows, total]
