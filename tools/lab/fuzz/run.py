"""One run: fuzzers, concurrent verified sessions, and the checks afterwards."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tools.lab.chaos.oracle import texts_wrong
from tools.lab.fuzz.bus import BusFuzzer
from tools.lab.fuzz.edge import EdgeFuzzer
from tools.lab.harness.metrics import Metrics, kind_at, scrape
from tools.lab.harness.stack import Stack
from tools.lab.loadtest.load import Load
from tools.lab.loadtest.user import Outcome

SESSIONS: Final = 4
"""Concurrent verified sessions beside the fuzzers."""
WARM_UP_SESSIONS: Final = 32
"""Concurrent verified sessions before the first malformed message."""
SPEECH_S: Final = 6.0
LOAD_END_S: Final = 120.0
SCRAPE_EVERY_S: Final = 0.5
SETTLE_S_MAX: Final = 60.0
"""From the last message until the broker has counted all of them."""
STARTED: Final = "process_start_time_seconds"
RESIDENT: Final = "process_resident_memory_bytes"
GROWTH_SHARE_MAX: Final = 0.10
GROWTH_MB_MAX: Final = 24.0
"""Memory is flat if the last tenth of the run uses at most this much more than the first, by share
or by amount (an allocator keeps some)."""


@dataclass(frozen=True, slots=True)
class Target:
    http_url: str
    front: str
    back: str
    metrics_port: int

    @classmethod
    def of(cls, stack: Stack) -> Target:
        settings = stack.environment
        return cls(
            stack.http_url(),
            settings["BROKER_FRONTEND"],
            settings["BROKER_BACKEND"],
            int(settings["METRICS_PORT"]),
        )


@dataclass
class Result:
    seed: int
    bus: int
    edge: int
    seconds: float
    sessions: int
    counted: dict[str, int] = field(default_factory=dict)
    closes: dict[int, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    refused: int = 0
    memory_mb: dict[str, list[float]] = field(default_factory=dict)
    """By process: the median of each tenth of the run."""
    problems: list[str] = field(default_factory=list)


class _Watch:
    """Scrapes metrics, and keeps verified sessions running, while the fuzzers send."""

    def __init__(self, target: Target, seed: int) -> None:
        self.scrapes: list[Metrics] = []
        self.outcomes: list[Outcome] = []
        self.started = 0
        self._target = target
        self._seed = seed
        self._sessions = SESSIONS
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._scrape),
            threading.Thread(target=self._speak),
        ]

    def start(self, warm_up_s: float) -> None:
        """Run sessions alone first: processes allocate memory for their first sessions, and workers
        for each new length of audio. That growth is not judged."""
        self._sessions = WARM_UP_SESSIONS if warm_up_s else SESSIONS
        for thread in self._threads:
            thread.start()
        time.sleep(warm_up_s)
        self._sessions = SESSIONS
        del self.scrapes[:-1]

    def end(self) -> None:
        """Wait for the sessions in progress."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _scrape(self) -> None:
        while not self._over.is_set():
            self.scrapes.append(scrape(self._target.metrics_port))
            self._over.wait(SCRAPE_EVERY_S)

    def _speak(self) -> None:
        url = self._target.http_url.replace("http", "ws", 1) + "/ws/asr"
        while not self._over.is_set() or not self.started:
            sessions = self._sessions
            load = Load(
                url,
                sessions=sessions,
                duration_s=SPEECH_S,
                ramp_s=0.5,
                seed=self._seed + self.started,
            )
            self.started += sessions
            self.outcomes += load.wait(LOAD_END_S)


def run(
    target: Target,
    *,
    seed: int,
    bus: int,
    edge: int,
    first: int = 0,
    warm_up_s: float = 0.0,
    show: Callable[[int, int], Any] = lambda _bus, _edge: None,
) -> Result:
    """Send ``bus`` and ``edge`` messages, from number ``first`` on. Verified sessions run for
    ``warm_up_s`` before the first message. ``show`` gets the messages sent so far, several times a
    second."""
    before = scrape(target.metrics_port)
    watch = _Watch(target, seed)
    watch.start(warm_up_s)
    began_s = time.monotonic()
    bus_fuzzer = BusFuzzer(target.front, target.back, seed=seed, first=first, count=bus)
    edge_fuzzer = EdgeFuzzer(target.http_url, seed=seed, first=first, count=edge)
    edge_thread = threading.Thread(target=asyncio.run, args=(edge_fuzzer.run(),))
    bus_fuzzer.start()
    edge_thread.start()
    try:
        while not bus_fuzzer.join(0.25) or edge_thread.is_alive():
            edge_thread.join(0.25)
            show(bus_fuzzer.sent, edge_fuzzer.sent)
    finally:
        bus_fuzzer.stop()
        edge_fuzzer.stop()
        bus_fuzzer.join()
        edge_thread.join()
        watch.end()
    seconds = time.monotonic() - began_s
    after, uncounted = _settled(target, before, bus_fuzzer)
    result = Result(seed, bus_fuzzer.sent, edge_fuzzer.sent, seconds, watch.started)
    result.counted = dict(bus_fuzzer.expected)
    result.closes, result.statuses = dict(edge_fuzzer.closes), dict(edge_fuzzer.statuses)
    result.refused = edge_fuzzer.refused
    result.memory_mb = _memory(watch.scrapes)
    result.problems = [
        *([bus_fuzzer.problem] if bus_fuzzer.problem else []),
        *edge_fuzzer.problems,
        *uncounted,
        *lives_changed(before, after),
        *grown(result.memory_mb),
        *texts_wrong(watch.outcomes, watch.started),
    ]
    failed = after.total("asr_gateway_failed_sessions_total")
    if failed > before.total("asr_gateway_failed_sessions_total"):
        result.problems.append("a bug of the gateway ended a session")
    return result


def _settled(target: Target, before: Metrics, fuzzer: BusFuzzer) -> tuple[Metrics, list[str]]:
    """Return the metrics once every message is counted, and the messages not counted in time."""
    deadline_s = time.monotonic() + SETTLE_S_MAX
    while True:
        after = scrape(target.metrics_port)
        wrong = miscounted(before, after, fuzzer.expected)
        if not wrong or time.monotonic() > deadline_s:
            return after, wrong
        time.sleep(SCRAPE_EVERY_S)


def miscounted(before: Metrics, after: Metrics, expected: dict[str, int]) -> list[str]:
    """The broker's counters hold every message that it had to discard, and no other one."""
    name = "asr_broker_incidents_total"
    found = []
    for reason, count in sorted(expected.items()):
        counted = after.total(name, reason=reason) - before.total(name, reason=reason)
        if counted != count:
            found.append(f"{reason}: {count} messages, {counted:.0f} counted")
    return found


def lives_changed(before: Metrics, after: Metrics) -> list[str]:
    """No process has ended or was restarted."""
    lives = after.each(STARTED)
    return [
        f"{kind_at(place)} at port offset {place} has ended"
        for place, began in before.each(STARTED).items()
        if lives.get(place) != began
    ]


def _memory(scrapes: Sequence[Metrics]) -> dict[str, list[float]]:
    tenth = max(1, len(scrapes) // 10)
    found = {}
    for place in scrapes[0].each(RESIDENT) if scrapes else ():
        all_mb = [b[place] / 1e6 for each in scrapes if place in (b := each.each(RESIDENT))]
        found[f"{kind_at(place)} +{place}"] = [
            statistics.median(all_mb[begin : begin + tenth])
            for begin in range(0, len(all_mb), tenth)
        ]
    return found


def grown(memory_mb: dict[str, list[float]]) -> list[str]:
    """Processes whose memory is not flat."""
    return [
        f"{name}: memory grew from {tenths[0]:.0f} to {tenths[-1]:.0f} MB"
        for name, tenths in memory_mb.items()
        if tenths[-1] > tenths[0] + max(GROWTH_MB_MAX, GROWTH_SHARE_MAX * tenths[0])
    ]
