"""Verified sessions in a thread of their own, beside a fault or a measurement."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial

from tools.lab.loadtest.driver import Driver
from tools.lab.loadtest.speech import DigitSpeech
from tools.lab.loadtest.user import Behaviour, Outcome

CHUNK_MS = 200
PATIENCE_S = 60.0


class Load:
    """``sessions`` sessions of ``duration_s`` that begin within ``ramp_s``.

    ``ended`` is called for each, on the load's thread, before that session does anything else.
    """

    def __init__(
        self,
        url: str,
        *,
        sessions: int,
        duration_s: float,
        ramp_s: float,
        seed: int,
        binary: bool = True,
        partials: bool = False,
        ended: Callable[[Outcome], None] = lambda _outcome: None,
    ) -> None:
        behaviour = Behaviour(
            url=url,
            mode="auto",
            binary=binary,
            partials=partials,
            resume=True,
            speed=1.0,
            patience_s=PATIENCE_S,
            final_timeout_s=PATIENCE_S,
        )
        speeches = [
            (
                str(uuid.uuid4()),
                ramp_s * number / sessions,
                partial(DigitSpeech, seed * 10_007 + number, round(duration_s * 1000), CHUNK_MS),
            )
            for number in range(sessions)
        ]
        self.began_s = time.monotonic()
        self._driver = Driver(speeches, behaviour, began_s=self.began_s, ended=ended)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_until_complete(self._driver.run())
        self._loop.close()

    @property
    def running(self) -> bool:
        """Whether sessions have not ended yet."""
        return self._thread.is_alive()

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes of all sessions. A session that does not end in time has failed."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._driver.stop)
            self._thread.join()
        return self._driver.outcomes


def longest_pause_s(outcomes: list[Outcome], from_s: float, until_s: float) -> float:
    """The longest time without a text of any session in a span, in seconds since the load began:
    the time for which clients noticed a fault. A pause that begins in the span counts to its
    end."""
    received = sorted(at_s for outcome in outcomes for at_s, _ in outcome.segment_ms)
    inside = [from_s, *(at_s for at_s in received if from_s <= at_s <= until_s)]
    inside += [at_s for at_s in received if at_s > until_s][:1]
    return max((later - sooner for sooner, later in itertools.pairwise(inside)), default=0.0)


def slowest_ms(outcomes: list[Outcome], from_s: float, until_s: float) -> float:
    """The longest latency from the end of speech to its text, of texts due in a span."""
    found = [
        latency_ms
        for outcome in outcomes
        for at_s, latency_ms in outcome.segment_ms
        if from_s <= at_s and at_s - latency_ms / 1000 <= until_s
    ]
    return max(found, default=0.0)


def audio_s(outcomes: list[Outcome], from_s: float, until_s: float) -> float:
    """Seconds of audio that all sessions sent in a span, at the pace of speech."""
    return sum(
        max(0.0, min(until_s, o.came_in_s + o.spoken_in_s) - max(from_s, o.came_in_s))
        for o in outcomes
        if o.came_in_s is not None
    )
