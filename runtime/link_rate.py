"""Core: the capacity of a link, measured while the link is full.

The sender puts a *mark* behind each piece of audio. The receiver reports when the mark arrived, so
that neither the way back nor a late loop of the sender counts. The two clocks differ by an unknown
constant, so the fastest mark is assumed not to have queued, and the others are compared with it.
While marks queue, the link is full, and the rate at which bytes arrive is its capacity. A link on
which nothing ever queues has no measured capacity, and no limit.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable

from msgspec import Struct

MARKS_MAX = 4_096
"""Marks in transit; beyond it the oldest counts as lost."""
QUEUED_S_MIN = 0.1
"""A mark that took less time has not queued: a busy processor delays marks, too."""
QUEUED_ROUND_TRIPS_MIN = 4.0
"""The same in round trips of the link: TCP needs several for a piece of audio."""
QUEUED_WAYS_MIN = 2.0
"""Used instead of round trips if both sides have one clock: the same as a multiple of the fastest
mark, which may have waited for audio itself."""
BURST_BYTES = 16 << 10
"""Bytes that are not counted after a pause: rate limiters let that much pass at once."""
CLOCK_DRIFT_MAX = 500e-6
"""Seconds per second by which the two clocks may diverge: as far as NTP slews one."""
FULL_S_MIN = 1.0
"""Time for which the link must have been full before its rate counts: more than a few stalls."""
SLOW_MARKS_MIN = 2.0
"""Slow marks needed, after decay: three or more. A link that was cut, or a receiver that was
stopped, delays only one: all that follow arrive with it."""
SLOW_S_MIN = 0.05
"""A mark is slow if it arrives this long after the one before."""
TRIAL_BYTES = 128 << 10
"""Bytes that are sent to try a link: four seconds of audio."""
TRIAL_INTERVAL_S = 10.0
"""Time until the next trial, from the last time at which half as much was sent. After a trial that
has queued, the next one follows at once …"""
FULL_S_SURE = 2.0
"""… until the link was full for this long. The rate then counts until the next trial."""
MEMORY_S = 20.0
"""Time constant with which measurements fade."""
TRUSTED_S = 12.0
"""A link that has not been full for this long may have a larger capacity now …"""
DOUBLING_S = 10.0
"""… which is assumed to double in each such interval from then on."""
SENT_MEMORY_S = 5.0
"""Time constant of the average sending rate …"""
SENT_PEAK_MEMORY_S = 15.0
"""… and of the decay of its peak: speakers who pause at the same time are no spare capacity."""


class LinkUse(Struct, frozen=True, kw_only=True):
    """In bytes per second."""

    sent: float = 0.0
    sent_peak: float = 0.0
    """Recent peak of ``sent``."""
    capacity: float = math.inf
    """Infinite: the link was never full."""


class _Mark(Struct, frozen=True):
    sent_s: float
    first_s: float
    """When the first byte since the previous mark was sent."""
    bytes: int
    """Bytes sent since the previous mark, this one included."""
    receiver: Hashable


class _Way:
    """The delays of one receiver."""

    def __init__(self) -> None:
        self.least_s = self.round_trip_s = math.inf
        """Shortest time from a mark to its arrival, by the two clocks, and shortest round trip."""
        self._at_s = math.inf

    def note(self, took_s: float, round_trip_s: float, now_s: float) -> None:
        drift_s = max(0.0, now_s - self._at_s) * CLOCK_DRIFT_MAX
        self.least_s, self._at_s = min(took_s, self.least_s + drift_s), now_s
        self.round_trip_s = min(self.round_trip_s, round_trip_s)


class LinkRate:
    """Call ``note_sent`` for each message, ``note_mark`` if it is a mark, and ``note_arrival`` when
    a mark is known to have arrived. ``now_s`` is the sender's clock. Links to several receivers
    count as one, because they usually share the sender's own link."""

    def __init__(self) -> None:
        self._sent = self._sent_peak = 0.0
        self._sent_at_s = -math.inf
        self.reconnected()
        self._bytes = self._full_s = self._slow_marks = 0.0
        """Bytes sent while the link was full, the time for which it was full, and slow marks in
        that time, all with exponential decay."""
        self._faded_at_s = self._full_at_s = -math.inf

    def reconnected(self) -> None:
        """Earlier marks are lost, and the receiver may have another clock."""
        self._marks: OrderedDict[Hashable, _Mark] = OrderedDict()
        self.unmarked_bytes = 0
        self._first_s: float | None = None
        self._tried_at_s = -math.inf
        self._in_doubt = False
        """The last trial has queued."""
        self._ways: dict[Hashable, _Way] = {}
        self._arrived_s = -math.inf

    def note_sent(self, size: int, now_s: float, *, trial: bool = False) -> None:
        """A message of this many bytes was sent. A ``trial`` does not count as use of the link."""
        self._advance(now_s)
        if not trial:
            self._sent += size / SENT_MEMORY_S
        self.unmarked_bytes += size
        self._first_s = now_s if self._first_s is None else self._first_s

    def note_mark(self, key: Hashable, now_s: float, *, receiver: Hashable = None) -> None:
        """The message just sent to ``receiver`` is a mark."""
        first_s = now_s if self._first_s is None else self._first_s
        self._marks[key] = _Mark(now_s, first_s, self.unmarked_bytes, receiver)
        if len(self._marks) > MARKS_MAX:
            self._marks.popitem(last=False)
        if self.unmarked_bytes >= TRIAL_BYTES // 2:
            self._tried_at_s, self._in_doubt = now_s, False
        self.unmarked_bytes, self._first_s = 0, None

    def trial_due(self, now_s: float) -> bool:
        """Whether ``TRIAL_BYTES`` should be sent before the next mark. False until the delay of a
        first mark is known, and while the last trial is in transit."""
        over = now_s - self._tried_at_s >= TRIAL_INTERVAL_S
        return bool(self._ways) and not self._marks and (over or self._in_doubt)

    def note_arrival(
        self, key: Hashable, arrived_s: float, now_s: float, *, same_clock: bool = False
    ) -> None:
        """The mark arrived at ``arrived_s`` on the receiver's clock, or on the sender's with
        ``same_clock``. The sender learns this at ``now_s``."""
        mark = self._marks.pop(key, None)
        if mark is None:
            return
        way = self._ways.setdefault(mark.receiver, _Way())
        took_s = arrived_s - mark.sent_s
        way.note(took_s, now_s - mark.sent_s, now_s)
        if same_clock:
            difference_s, usual_s = 0.0, QUEUED_WAYS_MIN * way.least_s
        else:
            difference_s, usual_s = way.least_s, QUEUED_ROUND_TRIPS_MIN * way.round_trip_s
        before_s, self._arrived_s = self._arrived_s, arrived_s - difference_s
        self._fade(now_s)
        if took_s - difference_s >= max(QUEUED_S_MIN, usual_s):
            burst = BURST_BYTES if before_s < mark.first_s else 0
            self._bytes += max(0, mark.bytes - burst)
            span_s = max(0.0, self._arrived_s - max(mark.first_s, before_s))
            self._full_s += span_s
            self._slow_marks += span_s >= SLOW_S_MIN
            self._full_at_s = now_s
            self._in_doubt = self._full_s < FULL_S_SURE

    def drop(self, key: Hashable) -> None:
        """The mark has arrived at an unknown time."""
        self._marks.pop(key, None)

    def forget(self, receiver: Hashable) -> None:
        """Forget a receiver that has left, and its marks in transit."""
        self._ways.pop(receiver, None)
        for key in [key for key, mark in self._marks.items() if mark.receiver == receiver]:
            del self._marks[key]

    def use(self, now_s: float) -> LinkUse:
        self._advance(now_s)
        capacity = math.inf
        if self._full_s >= FULL_S_MIN and self._slow_marks >= SLOW_MARKS_MIN:
            wider_s = max(0.0, now_s - self._full_at_s - TRUSTED_S)
            # At least a byte, because utilisation is divided by it.
            capacity = max(1.0, self._bytes / self._full_s) * 2 ** min(wider_s / DOUBLING_S, 100.0)
        peak = max(self._sent, self._sent_peak)
        return LinkUse(sent=self._sent, sent_peak=peak, capacity=capacity)

    def _advance(self, now_s: float) -> None:
        since_s = now_s - self._sent_at_s
        self._sent_peak = max(self._sent, self._sent_peak) * math.exp(-since_s / SENT_PEAK_MEMORY_S)
        self._sent *= math.exp(-since_s / SENT_MEMORY_S)
        self._sent_at_s = now_s

    def _fade(self, now_s: float) -> None:
        keep = math.exp(-(now_s - self._faded_at_s) / MEMORY_S)
        self._bytes *= keep
        self._full_s *= keep
        self._slow_marks *= keep
        self._faded_at_s = now_s
