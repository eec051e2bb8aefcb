"""Measurement of the capacity of simulated links."""

from __future__ import annotations

import itertools
import math
import random
from collections import deque

import pytest

from runtime.link_rate import (
    BURST_BYTES,
    DOUBLING_S,
    SENT_PEAK_MEMORY_S,
    TRIAL_BYTES,
    TRIAL_INTERVAL_S,
    TRUSTED_S,
    LinkRate,
)

STEP_S = 0.001
MARK_S = 0.25
MARK_BYTES = 100
AUDIO_BYTES_PER_S = 32_000.0
UTTERANCE_S = 3.0


class Simulation:
    """A link that carries so many bytes per second, to a peer whose clock is ``clock_s`` ahead.

    ``stalls``: when the peer stops, and for how long.
    """

    def __init__(
        self,
        bytes_per_s: float,
        *,
        way_s: float = 0.0002,
        clock_s: float = 1_000.0,
        drift: float = 0.0,
        burst: int = 0,
        stalls: tuple[tuple[float, float], ...] = (),
    ) -> None:
        self.rate = LinkRate()
        self.bytes_per_s = bytes_per_s
        self.now_s = 0.0
        self.tried = 0
        self._way_s, self._clock_s, self._drift, self._stalls = way_s, clock_s, drift, stalls
        self._burst = burst
        self._free_s = 0.0
        """When the link has nothing more to send."""
        self._numbers = itertools.count()
        self._answers: deque[tuple[int, float, float]] = deque()

    def run(self, seconds: float, sessions: int, *, trials: bool = False) -> None:
        """``sessions`` send an utterance every three seconds, each at times of its own."""
        end_s, rng = self.now_s + seconds, random.Random(1)
        due_s = {number: self.now_s + UTTERANCE_S * rng.random() for number in range(sessions)}
        mark_s = self.now_s
        while self.now_s < end_s:
            self.now_s += STEP_S
            while self._answers and self._answers[0][-1] <= self.now_s:
                number, theirs_s, _ = self._answers.popleft()
                self.rate.note_arrival(number, theirs_s, self.now_s)
            for number, at_s in due_s.items():
                if at_s <= self.now_s:
                    due_s[number] += UTTERANCE_S
                    self._send(round(AUDIO_BYTES_PER_S * UTTERANCE_S))
                    self._mark()
            if mark_s <= self.now_s:
                mark_s += MARK_S
                if trials and self.rate.trial_due(self.now_s):
                    self._send(TRIAL_BYTES, trial=True)
                    self.tried += 1
                self._mark()

    def _send(self, size: int, *, trial: bool = False) -> None:
        self.rate.note_sent(size, self.now_s, trial=trial)
        began_s = max(self._free_s, self.now_s - self._burst / self.bytes_per_s)
        self._free_s = max(self.now_s, began_s + size / self.bytes_per_s)

    def _mark(self) -> None:
        number = next(self._numbers)
        self._send(MARK_BYTES)
        self.rate.note_mark(number, self.now_s)
        received_s = self._free_s + self._way_s
        for began_s, lasting_s in self._stalls:
            if began_s <= received_s < began_s + lasting_s:
                received_s = began_s + lasting_s
        theirs_s = received_s * (1 + self._drift) + self._clock_s
        self._answers.append((number, theirs_s, received_s + self._way_s))

    @property
    def capacity(self) -> float:
        return self.rate.use(self.now_s).capacity


@pytest.mark.parametrize("clock_s", [0.0, 5_000.0])
@pytest.mark.parametrize("sessions", [7, 12])
def test_a_narrow_link_is_measured_while_utterances_queue(sessions: int, clock_s: float) -> None:
    link = Simulation(240_000.0, clock_s=clock_s)
    link.run(30.0, sessions)
    assert link.capacity == pytest.approx(240_000.0, rel=0.06)


@pytest.mark.parametrize("burst", [0, BURST_BYTES])
def test_single_utterances_do_not_show_more_than_a_link_carries(burst: int) -> None:
    link = Simulation(240_000.0, burst=burst)
    link.run(30.0, 2)
    assert 0.8 * 240_000.0 < link.capacity < 1.03 * 240_000.0


def test_a_wide_link_has_no_measurement() -> None:
    link = Simulation(100e6)
    link.run(60.0, 200)
    assert link.capacity == math.inf


def test_neither_a_long_way_nor_diverging_clocks_are_a_full_link() -> None:
    link = Simulation(100e6, way_s=0.3, drift=300e-6)
    link.run(600.0, 3)
    assert link.capacity == math.inf


def test_a_peer_that_stops_now_and_then_is_no_full_link() -> None:
    link = Simulation(100e6, stalls=tuple((at_s, 0.3) for at_s in range(5, 60, 10)))
    link.run(60.0, 20)
    assert link.capacity == math.inf


def test_a_mark_of_which_nobody_knows_when_it_arrived_does_not_count() -> None:
    rate = LinkRate()
    for number in range(40):
        rate.note_sent(1_000_000, float(number))
        rate.note_mark(number, float(number))
        if number % 2:
            rate.note_arrival(number, number + 0.001, number + 0.002)
        else:
            rate.drop(number)
    assert rate.use(40.0).capacity == math.inf
    assert rate.trial_due(100.0), "none is under way"


def test_a_link_that_was_cut_is_no_full_link() -> None:
    link = Simulation(100e6, stalls=((5, 2.5), (12, 2.5)))
    for _ in range(20):
        link.run(1.0, 20)
        assert link.capacity == math.inf


def test_a_link_that_is_full_no_longer_may_carry_more_and_more() -> None:
    link = Simulation(240_000.0)
    link.run(30.0, 7)
    before = link.capacity
    link.bytes_per_s = 100e6
    link.run(TRUSTED_S + DOUBLING_S, 7)
    assert link.capacity == pytest.approx(2 * before, rel=0.1)
    link.run(3 * DOUBLING_S, 7)
    assert link.capacity >= 8 * before


def test_what_is_sent_and_its_fading_peak() -> None:
    link = Simulation(100e6)
    link.run(60.0, 7)
    use = link.rate.use(link.now_s)
    assert use.sent == pytest.approx(7 * AUDIO_BYTES_PER_S, rel=0.2)
    assert use.sent <= use.sent_peak <= 1.3 * 7 * AUDIO_BYTES_PER_S
    later = link.rate.use(link.now_s + SENT_PEAK_MEMORY_S)
    assert later.sent < 0.1 * use.sent
    assert later.sent_peak == pytest.approx(use.sent_peak / math.e)


def test_on_a_new_connection_earlier_marks_and_clocks_do_not_count() -> None:
    link = Simulation(240_000.0)
    link.run(2.0, 7)
    link.rate.reconnected()
    link.rate.note_arrival(0, 0.0, link.now_s)
    other = Simulation(240_000.0, clock_s=-500.0)
    other.rate, other.now_s = link.rate, link.now_s
    other.run(30.0, 7)
    assert other.capacity == pytest.approx(240_000.0, rel=0.06)


@pytest.mark.parametrize("burst", [0, BURST_BYTES])
def test_a_narrow_link_is_known_before_anybody_speaks(burst: int) -> None:
    link = Simulation(240_000.0, burst=burst)
    link.run(5.0, 0, trials=True)
    for _ in range(4):
        assert 0.8 * 240_000.0 < link.capacity < 1.03 * 240_000.0
        link.run(TRIAL_INTERVAL_S, 0, trials=True)
    assert link.rate.use(link.now_s).sent < 1_000, "trials are no use"


def test_a_wide_link_is_tried_now_and_then_and_not_while_it_is_used() -> None:
    link = Simulation(100e6)
    link.run(3 * TRIAL_INTERVAL_S, 0, trials=True)
    assert 3 <= link.tried <= 4 and link.capacity == math.inf
    tried = link.tried
    link.run(3 * TRIAL_INTERVAL_S, 5, trials=True)
    assert link.tried <= tried + 1 and link.capacity == math.inf
