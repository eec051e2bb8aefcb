"""Clock, random numbers, links and trace of a schedule."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

from tests.simulation.options import Options

TRACE_EVENTS = 50
ONE_MODEL_SEED = 300_000
"""From this seed on, schedules with real gateways have one model. Seeds recorded before the
simulation had several models then still produce the same schedule."""
DELAY_S_MIN = 0.001
DELAY_S_MAX = 0.02
DELAY_REORDERED_S_MAX = 0.4


class World:
    """An agenda of events. ``run`` performs them one at a time, in the order of their times."""

    def __init__(
        self, seed: int, *, real_gateways: bool, faults: Mapping[str, float], echo: bool
    ) -> None:
        """``faults`` replace those of the seed; ``echo`` prints each event."""
        self.rng = Random(seed)
        drawn = Options.draw(self.rng, real_gateways=real_gateways)
        changes: dict[str, Any] = dict(faults)
        if not real_gateways or seed < ONE_MODEL_SEED:
            drawn = drawn.with_models(Random(f"models of {seed}"))
            drawn = drawn.with_speakers(Random(f"speakers of {seed}"))
            drawn = drawn.with_brokers(Random(f"connections of {seed}"))
            drawn = drawn.with_long_stops(Random(f"stops of {seed}"))
        drawn = drawn.with_streams(Random(f"streams of {seed}"))
        self.options = replace(drawn, **changes)
        self.now_s = 0.0
        self.healing = False
        self.events = 0
        self.trace: deque[tuple[float, str, object]] = deque(maxlen=TRACE_EVENTS)
        self._echo = echo
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        self.at(self.now_s + delay_s, act)

    def at(self, when_s: float, act: Callable[[], None]) -> None:
        """Events of the same time happen in the order of the calls."""
        self._order += 1
        heapq.heappush(self._agenda, (when_s, self._order, act))

    def run(self, until_s: float, done: Callable[[], bool] = lambda: False) -> None:
        """Until ``until_s``, or ``done``."""
        while self._agenda and self._agenda[0][0] <= until_s and not done():
            self.now_s, _, act = heapq.heappop(self._agenda)
            self.events += 1
            act()
        if not done():
            self.now_s = max(self.now_s, until_s)

    def note(self, what: str, about: object) -> None:
        self.trace.append((self.now_s, what, about))
        if self._echo:
            print(_line(self.now_s, what, about))

    def trace_text(self) -> str:
        return "\n".join(_line(*entry) for entry in self.trace)

    def happens(self, share: float) -> bool:
        return share > 0 and not self.healing and self.rng.random() < share


class Link:
    """One direction between two peers, with the faults of the options until the heal."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last_s = 0.0
        self.cut = False
        """Messages are lost without a notice to the sender."""
        self._held: list[Callable[[], None]] | None = None

    def send(self, deliver: Callable[[], None]) -> None:
        options = self._world.options
        if self.cut or self._world.happens(options.loss):
            self._world.note("lost", "")
            return
        if self._held is not None:
            self._held.append(deliver)
            return
        self._deliver(deliver)
        if self._world.happens(options.duplication):
            self._deliver(deliver)

    @property
    def holding(self) -> bool:
        return self._held is not None

    def hold(self) -> None:
        """Keep messages until ``release``."""
        if self._held is None:
            self._held = []

    def drop(self) -> None:
        """Lose the messages that are kept."""
        if self._held is not None:
            self._held = []

    def release(self) -> None:
        held, self._held = self._held, None
        for deliver in held or ():
            self._deliver(deliver)

    def _deliver(self, deliver: Callable[[], None]) -> None:
        world = self._world
        reorders = world.options.reorder and not world.healing
        most_s = DELAY_REORDERED_S_MAX if reorders else DELAY_S_MAX
        arrival_s = world.now_s + world.rng.uniform(DELAY_S_MIN, most_s)
        if not reorders:
            arrival_s = self._last_s = max(self._last_s, arrival_s)
        world.at(arrival_s, deliver)


def _line(now_s: float, what: str, about: object) -> str:
    return f"{now_s:9.3f}  {what:<22} {_short(about)}"


def _short(about: object) -> str:
    text = repr(about).replace("\\x00", "")
    return text if len(text) <= 400 else text[:400] + "…"
