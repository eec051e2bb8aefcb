"""One run: generator processes, their progress, and samples of the system meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing as mp
import queue
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runtime import lifecycle
from tools.lab.loadtest.driver import Driver, Progress, cpu_s
from tools.lab.loadtest.plan import Plan
from tools.lab.loadtest.samples import Samples
from tools.lab.loadtest.user import Outcome

PROGRESS_EVERY_S = 1.0
START_S = 1.5
"""From the start of the processes to the first session, so that all begin together."""
GRACE_S = 5.0


@dataclass(slots=True)
class Results:
    outcomes: list[Outcome]
    samples: Samples
    generator_cpu_s: float
    """Of all generator processes, and of this one, which looks at the samples."""
    wall_s: float
    late_ms: float
    """The most by which a generator was late; if large, the generators were the bottleneck."""
    stopped: bool = False
    restart_every_s: float | None = None
    """Each process was restarted once in this time."""


@dataclass(slots=True)
class _Report:
    process: int
    progress: Progress
    outcomes: list[Outcome] | None = None
    cpu_s: float = 0.0
    late_ms: float = 0.0


@dataclass(slots=True)
class Overview:
    """Progress of all processes together."""

    parts: dict[int, Progress] = field(default_factory=dict)

    def total(self) -> Progress:
        total = Progress()
        for part in self.parts.values():
            total.waiting += part.waiting
            total.active += part.active
            total.refusals += part.refusals
            total.resumes += part.resumes
            total.recent_segment_ms += part.recent_segment_ms
            total.recent_final_ms += part.recent_final_ms
            for status, count in part.ended.items():
                total.ended[status] = total.ended.get(status, 0) + count
        return total


def run(
    plan: Plan,
    processes: int,
    samples: Samples,
    show: Callable[[float, Progress, Samples], None],
) -> Results:
    """Carry out ``plan``. ``KeyboardInterrupt`` ends it early, with the results so far.

    Raises:
        RuntimeError: if a generator process dies.
    """
    context = mp.get_context("spawn")
    reports: Any = context.Queue()
    stop: Any = context.Event()
    began_s = time.monotonic() + START_S
    samples.began_s = began_s
    children = [
        context.Process(
            target=_generate, args=(plan, number, processes, began_s, reports, stop), daemon=True
        )
        for number in range(processes)
    ]
    for child in children:
        child.start()
    try:
        return _collect(children, reports, stop, began_s, samples, show)
    finally:
        for child in children:
            child.join(GRACE_S)
            child.kill()


def _collect(
    children: list[Any],
    reports: Any,
    stop: Any,
    began_s: float,
    samples: Samples,
    show: Callable[[float, Progress, Samples], None],
) -> Results:
    overview = Overview()
    cpu_before_s = cpu_s()
    final: dict[int, _Report] = {}
    stopped = False
    look_s = 0.0
    while len(final) < len(children):
        try:
            now_s = time.monotonic()
            if now_s >= look_s:
                look_s = now_s + PROGRESS_EVERY_S
                samples.take()
                show(now_s - began_s, overview.total(), samples)
            with contextlib.suppress(queue.Empty):
                report: _Report = reports.get(timeout=max(0.0, look_s - time.monotonic()))
                overview.parts[report.process] = report.progress
                if report.outcomes is not None:
                    final[report.process] = report
        except KeyboardInterrupt:
            if stopped:
                raise
            stopped = True
            stop.set()
        for number, child in enumerate(children):
            if number not in final and child.exitcode not in (None, 0):
                raise RuntimeError(f"generator {number} ended with exit code {child.exitcode}")
    samples.take()
    show(time.monotonic() - began_s, overview.total(), samples)
    return Results(
        outcomes=[outcome for report in final.values() for outcome in report.outcomes or ()],
        samples=samples,
        generator_cpu_s=cpu_s() - cpu_before_s + sum(r.cpu_s for r in final.values()),
        wall_s=time.monotonic() - began_s,
        late_ms=max(report.late_ms for report in final.values()),
        stopped=stopped,
    )


def _generate(
    plan: Plan, number: int, processes: int, began_s: float, reports: Any, stop: Any
) -> None:
    """Body of a generator process."""
    lifecycle.die_with_parent()
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)  # The parent sets ``stop``.
    asyncio.run(_drive(plan, number, processes, began_s, reports, stop))


async def _drive(
    plan: Plan, number: int, processes: int, began_s: float, reports: Any, stop: Any
) -> None:
    driver = Driver(plan.share(number, processes), plan.behaviour, began_s=began_s)

    async def report() -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            reports.put(_Report(number, driver.progress()))
            if stop.is_set():
                driver.stop()

    before_s = cpu_s()
    reporting = asyncio.create_task(report())
    outcomes = await driver.run()
    reporting.cancel()
    reports.put(
        _Report(
            number,
            driver.progress(),
            outcomes,
            cpu_s=cpu_s() - before_s,
            late_ms=driver.latest_wakening_ms,
        )
    )
