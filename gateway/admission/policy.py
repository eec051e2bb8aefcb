"""SANS-IO: may one more client come in? Decided before the WebSocket upgrade, so that a refusal
is plain HTTP 503 with ``Retry-After`` and costs the client nothing. Once admitted, a session is
never refused work for want of capacity: its audio comes in real time whatever we do, so admission
has to refuse before the capacity is used up.

Three things can be used up, and each is watched by what shows it first:

* the workers' throughput, by *utilisation*: audio arriving per second over audio recognised per
  second. A queue, and with it the expected wait, only begins to grow when it is too late.
* the expected wait nevertheless, for workers that die or slow down.
* this gateway's event loop, by how *busy* it is with clients in real time, and by its *delay*: how
  long the event loop and speech detection take for one frame, from the moment that it is due. A
  delay, too, only begins to grow when it is too late.

A session's audio shows in the arriving audio only some seconds after its admission. Until then
each new session counts with what is expected of it, less as it grows older; gateways tell each
other theirs through the broker. And each gateway admits a limited number of sessions a second,
because what an admission costs is seen later.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from wire.messages import Load

LOAD_SILENCE_S_MAX = 1.0
"""The broker tells its load every 250 ms; none for this long means that there is no broker."""
NEW_SESSION_S = 5.0
"""For so long a session's audio hardly shows in the measured rate: its first utterance has to end,
and the broker measures over some seconds. Then what is expected of it begins to fade."""
KNOWN_SESSION_S = 15.0
"""After so long it shows in full, and nothing more is expected."""
NEW_SESSIONS_STEP_S = 0.25
"""Sessions admitted within such a step have one age."""
DELAY_MEMORY_S = 1.0
"""Delays are averaged over about so long: a single pause is no overload."""
BUSY_MEMORY_S = 2.0
"""Busyness is averaged over about so long."""
UNSEEN_SESSION_S = 1.0
"""For so long a session hardly shows in the busyness; then more and more."""
SEEN_SESSION_S = 4.0
SESSION_BUSY = 0.002
"""What a session is expected to add to the busyness until there are some to tell: twice what one
adds on the machine of docs/performance.md."""
TELLING_SESSIONS = 50
RETRY_AFTER_NO_WORKER_S = 5
RETRY_AFTER_FULL_S = 5
RETRY_AFTER_BACKLOG_S = 15
RETRY_AFTER_BUSY_S = 2
RETRY_AFTER_RAMP_S = 1
REOPEN_BELOW = 0.7
"""Hysteresis: refusing for too long a wait or delay goes on until it is below this share of the
limit, so that admission does not flap at it."""
REOPEN_UTILISATION_BELOW = 0.9
"""The same for utilisation and busyness. Nearer, because what lies between stays unused."""


Return = Literal["no", "here", "elsewhere"]
"""Whether a client comes back to a session that was admitted before, and where that is. The
capacity for it was found at its admission, so its return is refused by what it truly needs only:
here that is nothing, from elsewhere a broker and a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """HTTP 503: why, for programs and for people, and when to try again."""

    code: str
    message: str
    retry_after_s: int

    def body(self) -> dict[str, str | int]:
        """The answer's JSON."""
        return {
            "code": self.code,
            "message": self.message,
            "retry_after_s": self.retry_after_s,
        }


DRAINING = Refusal(code="draining", message="this gateway is stopping", retry_after_s=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """See ``gateway.settings`` for each. 0: no limit, but for ``min_workers`` and the wait."""

    max_connections: int
    min_workers: int
    est_wait_ms_max: int
    utilisation_max: float
    session_audio_rate: float
    sessions_per_s_max: float
    delay_ms_max: int
    busy_max: float


class Admission:
    """``own`` are the connections of this gateway."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._load: Load | None = None
        self._load_at_s = float("-inf")
        self._wait = _Switch(limits.est_wait_ms_max, REOPEN_BELOW)
        self._utilisation = _Switch(limits.utilisation_max, REOPEN_UTILISATION_BELOW)
        self._delay = _Switch(limits.delay_ms_max, REOPEN_BELOW)
        self._busy_switch = _Switch(limits.busy_max, REOPEN_UTILISATION_BELOW)
        self._ramp = _Ramp(limits.sessions_per_s_max)
        self._new = _NewSessions(NEW_SESSION_S, KNOWN_SESSION_S)
        self._unseen = _NewSessions(UNSEEN_SESSION_S, SEEN_SESSION_S)
        self._busy = self._audio_rate = 0.0
        self._busy_at_s = float("-inf")
        self._told_audio_rate = self._in_load_audio_rate = 0.0
        """What we told the broker last, and what of it is in its load."""
        self._delay_ms = 0.0
        self._delay_at_s = float("-inf")
        self._pulse_due_s: float | None = None

    # ------------------------------------------------------------------------------ what it is told

    def note_load(self, load: Load, now_s: float) -> None:
        self._load, self._load_at_s = load, now_s
        self._in_load_audio_rate = self._told_audio_rate
        self._wait.note(load.est_wait_ms)

    def note_pulse_due(self, due_s: float) -> None:
        """A frame goes through the event loop and speech detection at ``due_s``."""
        self._pulse_due_s = due_s

    def note_pulse(self, now_s: float) -> None:
        """It came out."""
        assert self._pulse_due_s is not None
        delay_ms = (now_s - self._pulse_due_s) * 1000
        weight = min(1.0, (now_s - self._delay_at_s) / DELAY_MEMORY_S)
        self._delay_ms += weight * (delay_ms - self._delay_ms)
        self._delay_at_s = now_s
        self._pulse_due_s = None

    def note_busy(self, share: float, now_s: float, *, audio_rate: float) -> None:
        """How busy the event loop was since this was told last, 0 to 1, and how many seconds of
        audio it took per second."""
        weight = min(1.0, (now_s - self._busy_at_s) / BUSY_MEMORY_S)
        self._busy += weight * (share - self._busy)
        self._audio_rate += weight * (audio_rate - self._audio_rate)
        self._busy_at_s = now_s

    # -------------------------------------------------------------------------------- what it knows

    def load(self, now_s: float) -> Load | None:
        """The broker's load, or None if there is no broker to speak of."""
        if now_s - self._load_at_s > LOAD_SILENCE_S_MAX:
            return None
        return self._load

    def delay_ms(self, now_s: float) -> float:
        """How long this gateway takes for one frame; more if one takes longer right now."""
        pending_s = 0.0 if self._pulse_due_s is None else now_s - self._pulse_due_s
        # One pulse that is late is told only once it is late for longer than the average is long.
        return max(self._delay_ms, (pending_s - DELAY_MEMORY_S) * 1000)

    def busy(self, now_s: float, *, own: int) -> float:
        """How busy this gateway's event loop will be soon, with those that have just come in.

        Clients that send faster than in real time take all the time there is, and slow down when
        others come. So of each connection at most one second of audio per second counts; one more
        is for the pulse.
        """
        busy = self._busy * min(1.0, (own + 1) / max(self._audio_rate, 1.0))
        unseen = min(self._unseen.shares(now_s), own)
        seen = own - unseen
        each = busy / seen if seen >= TELLING_SESSIONS else SESSION_BUSY
        return busy + unseen * each

    def expected_audio_rate(self, now_s: float, *, own: int) -> float:
        """Seconds of audio per second that this gateway's new sessions are yet to bring."""
        # Of sessions that have left again nothing is expected: at most one share for each here.
        return self._limits.session_audio_rate * min(self._new.shares(now_s), own)

    def tell_expected_audio_rate(self, now_s: float, *, own: int) -> float:
        """The same, to be told to the broker now; it tells everybody the sum."""
        self._told_audio_rate = self.expected_audio_rate(now_s, own=own)
        return self._told_audio_rate

    def utilisation(self, now_s: float, *, own: int) -> float:
        """Of the workers, soon: by the audio that arrives, and that which is expected."""
        load = self.load(now_s)
        if load is None or load.throughput_rtfx <= 0:
            return 0.0
        since_audio_rate = self.expected_audio_rate(now_s, own=own) - self._in_load_audio_rate
        # As many as we have admitted since, each of the other gateways is likely to have as well.
        since_audio_rate *= max(1, load.gateways) if since_audio_rate > 0 else 1
        return (
            max(0.0, load.arriving_audio_rate + load.expected_audio_rate + since_audio_rate)
            / load.throughput_rtfx
        )

    def readiness(self, now_s: float) -> Refusal | None:
        """What keeps this gateway from being ready: the broker or its workers."""
        load = self.load(now_s)
        if load is None:
            return Refusal(
                code="no_broker",
                message="the broker does not answer",
                retry_after_s=RETRY_AFTER_NO_WORKER_S,
            )
        needed = max(1, self._limits.min_workers)
        if load.workers < needed:
            return Refusal(
                code="no_worker",
                message=f"{load.workers} workers are ready, {needed} are needed",
                retry_after_s=RETRY_AFTER_NO_WORKER_S,
            )
        return None

    # --------------------------------------------------------------------------------- the decision

    def decide(
        self,
        now_s: float,
        *,
        own: int,
        backlog_full: bool,
        draining: bool,
        returns: Return = "no",
    ) -> Refusal | None:
        """By what is known here; ``own`` includes the one that asks. None: it may come in, unless
        ``count`` refuses it; if it does, ``note_admitted`` must be called at once."""
        if draining:
            return DRAINING
        if returns == "here":
            return None
        if returns == "elsewhere":
            # Not all of a killed gateway at once: each of them is a claim and a query.
            return self.readiness(now_s) or self._too_many_at_once(now_s)
        if backlog_full:
            return Refusal(
                code="storage_backlog",
                message="too much is waiting to be stored",
                retry_after_s=RETRY_AFTER_BACKLOG_S,
            )
        return self.readiness(now_s) or self._overloaded(now_s, own)

    def note_admitted(self, now_s: float) -> None:
        """One more session has come in, and counts as new from now on."""
        self._ramp.take(now_s)
        self._new.add(now_s)
        self._unseen.add(now_s)

    @property
    def counts_connections(self) -> bool:
        """Whether ``count`` may refuse at all."""
        return self._limits.max_connections > 0

    def count(self, *, connections: int) -> Refusal | None:
        """By the number of connections over all gateways, the one that asks included."""
        connections_max = self._limits.max_connections
        if connections_max and connections > connections_max:
            return Refusal(
                code="max_connections",
                message=f"all {connections_max} connections are taken",
                retry_after_s=RETRY_AFTER_FULL_S,
            )
        return None

    def _overloaded(self, now_s: float, own: int) -> Refusal | None:
        load = self.load(now_s)
        assert load is not None
        if self._wait.on:
            retry_s = max(1, -(-load.est_wait_ms // 1000))
            return _overload(f"results would take about {load.est_wait_ms} ms", retry_s)
        # As if it were admitted, so that the limit is not passed by one.
        used = self.utilisation(now_s, own=own)
        used += self._limits.session_audio_rate / max(load.throughput_rtfx, 1e-9)
        if self._utilisation.note(used):
            return _overload("the workers have no more to spare", RETRY_AFTER_BUSY_S)
        busy = self._busy_switch.note(self.busy(now_s, own=own))
        if self._delay.note(self.delay_ms(now_s)) or busy:
            return _overload("this gateway has no more to spare", RETRY_AFTER_BUSY_S)
        return self._too_many_at_once(now_s)

    def _too_many_at_once(self, now_s: float) -> Refusal | None:
        if self._ramp.left(now_s) < 1:
            return _overload("too many new sessions in this second", RETRY_AFTER_RAMP_S)
        return None


def _overload(message: str, retry_after_s: int) -> Refusal:
    return Refusal(code="overloaded", message=message, retry_after_s=retry_after_s)


class _Switch:
    """On above its limit, off again below a share of it."""

    def __init__(self, limit: float, reopen_below: float) -> None:
        self._limit = limit
        self._reopen_below = reopen_below
        self.on = False

    def note(self, value: float) -> bool:
        if value > self._limit > 0:
            self.on = True
        elif value < self._limit * self._reopen_below:
            self.on = False
        return self.on


class _Ramp:
    """At most so many a second, as many at once as in one second."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = self._most = max(1.0, per_s)
        self._at_s: float | None = None

    def left(self, now_s: float) -> float:
        """How many may come in now."""
        if not self._per_s:
            return math.inf
        if self._at_s is not None:
            self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._left

    def take(self, now_s: float) -> None:
        self._left = self.left(now_s) - 1


class _NewSessions:
    """Admissions of the last ``known_s``. Each is one share, less and less from ``new_s`` on."""

    def __init__(self, new_s: float, known_s: float) -> None:
        self._new_s = new_s
        self._known_s = known_s
        self._steps: deque[tuple[float, int]] = deque()

    def add(self, now_s: float) -> None:
        if self._steps and now_s - self._steps[-1][0] < NEW_SESSIONS_STEP_S:
            began_s, count = self._steps.pop()
            self._steps.append((began_s, count + 1))
        else:
            self._steps.append((now_s, 1))

    def shares(self, now_s: float) -> float:
        while self._steps and now_s - self._steps[0][0] >= self._known_s:
            self._steps.popleft()
        return sum(count * self._share(now_s - began_s) for began_s, count in self._steps)

    def _share(self, age_s: float) -> float:
        return min(1.0, (self._known_s - age_s) / (self._known_s - self._new_s))
