"""One run: fuzzers, verified sessions beside them, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tools.lab.chaos.load import Load
from tools.lab.chaos.oracle import texts_wrong
from tools.lab.fuzz.bus import BusFuzzer
from tools.lab.fuzz.edge import EdgeFuzzer
from tools.lab.fuzz.observe import Look, kind_of, look
from tools.lab.loadtest.user import Outcome

SESSIONS: Final = 4
"""Verified sessions at a time …"""
WARM_UP_SESSIONS: Final = 32
"""… and before the first bad message."""
SPEECH_S: Final = 6.0
LOAD_END_S: Final = 120.0
LOOK_EVERY_S: Final = 0.5
SETTLE_S_MAX: Final = 60.0
"""From the last message until all of them are counted."""
GROWTH_SHARE_MAX: Final = 0.10
GROWTH_MB_MAX: Final = 24.0
"""Memory is flat if the last tenth of the run has at most so much more than the first, by share
or, for what an allocator keeps, by amount."""


@dataclass(frozen=True, slots=True)
class Target:
    http_url: str
    front: str
    back: str
    metrics_port: int


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
    """By process: medians of each tenth of the run."""
    problems: list[str] = field(default_factory=list)


class _Watch:
    """Looks at the processes' memory, and keeps verified sessions going, while fuzzers run."""

    def __init__(self, target: Target, seed: int) -> None:
        self.looks: list[Look] = []
        self.outcomes: list[Outcome] = []
        self.started = 0
        self._target = target
        self._seed = seed
        self._sessions = SESSIONS
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._look), threading.Thread(target=self._speak)]

    def start(self, warm_up_s: float) -> None:
        """Many sessions alone for so long. What processes allocate for their first ones, workers
        for each new length of audio, is not the fuzzers' doing, and not looked at."""
        self._sessions = WARM_UP_SESSIONS if warm_up_s else SESSIONS
        for thread in self._threads:
            thread.start()
        time.sleep(warm_up_s)
        self._sessions = SESSIONS
        del self.looks[:-1]

    def end(self) -> None:
        """The sessions under way are heard to their end."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        while not self._over.is_set():
            self.looks.append(look(self._target.metrics_port))
            self._over.wait(LOOK_EVERY_S)

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
                ended=lambda _outcome: None,
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
    tell: Callable[[int, int], Any] = lambda _bus, _edge: None,
) -> Result:
    """``warm_up_s``: how long verified sessions run before the first message. ``tell`` gets the
    messages sent so far, twice a second."""
    before = look(target.metrics_port)
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
            tell(bus_fuzzer.sent, edge_fuzzer.sent)
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
    result.memory_mb = _memory(watch.looks)
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
        result.problems.append("a session was ended by a bug of the gateway")
    return result


def _settled(target: Target, before: Look, fuzzer: BusFuzzer) -> tuple[Look, list[str]]:
    """The system when every message is counted, or what is not within the time."""
    deadline_s = time.monotonic() + SETTLE_S_MAX
    while True:
        after = look(target.metrics_port)
        wrong = miscounted(before, after, fuzzer.expected)
        if not wrong or time.monotonic() > deadline_s:
            return after, wrong
        time.sleep(LOOK_EVERY_S)


def miscounted(before: Look, after: Look, expected: dict[str, int]) -> list[str]:
    """Every message that the broker had to discard is in its counters, and no other one."""
    name = "asr_broker_incidents_total"
    found = []
    for reason, count in sorted(expected.items()):
        counted = after.total(name, reason=reason) - before.total(name, reason=reason)
        if counted != count:
            found.append(f"{reason}: {count} messages, {counted:.0f} counted")
    return found


def lives_changed(before: Look, after: Look) -> list[str]:
    """No process has ended, or was started again."""
    lives = after.lives()
    return [
        f"{kind_of(place)} at port offset {place} has ended"
        for place, began in before.lives().items()
        if lives.get(place) != began
    ]


def _memory(looks: Sequence[Look]) -> dict[str, list[float]]:
    tenth = max(1, len(looks) // 10)
    found = {}
    for place in looks[0].memory_mb() if looks else ():
        all_mb = [mb[place] for each in looks if place in (mb := each.memory_mb())]
        found[f"{kind_of(place)} +{place}"] = [
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
