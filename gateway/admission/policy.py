"""Core: whether a gateway admits another session.

The decision is made before the WebSocket upgrade, so that a refusal is plain HTTP 503 with
``Retry-After``. An admitted session is never refused work for lack of capacity, because its audio
arrives in real time. So admission has to refuse before the capacity is used up.

It watches the following resources, each by the earliest sign of exhaustion:

* the throughput of the workers, by *utilisation*: audio arriving per second over audio recognised
  per second, and the share of their time that partial results take. A queue, and with it the
  expected wait, grows only after it is too late.
* the time to a result, as it follows from utilisation. A slow model lets utterances wait long
  before its workers are used up, because each occupies its worker for long.
* the links to the brokers, and from brokers to workers, by *their* utilisation: bytes sent over
  bytes carried while the link was full. In addition, by how late a broker answers a HELLO, which
  queues behind the jobs sent before.
* the expected wait nevertheless, for workers that fail or slow down.
* the event loop of this gateway, by the share of time in which it is *busy* with clients in real
  time, and by its *delay*: the time of one frame of audio through the event loop and speech
  detection. A delay, too, grows only after it is too late. The busy time for starting sessions is
  estimated apart from that for their audio, because only the latter lasts.

Each model has workers of its own, so throughput and wait are those of one model. A connection may
name its model only after the upgrade; then it is admitted twice, by this gateway and by its model.

The first session is admitted whenever a worker is ready. Files wait behind live sessions, so they
are not refused for lack of capacity.

A session's audio shows in the measured rate some seconds after its admission. Until then a new
session counts with an expected rate, which fades as it gets older; gateways exchange the sum of
theirs through the broker. Measured and expected audio together are no more than the expected rate
of all sessions present, unless more is measured. And each gateway admits a limited number of
sessions per second, because the cost of an admission shows later.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from gateway.admission import links
from runtime.link_rate import LinkUse
from wire.messages import ExpectedAudio, Lane, Load, ServedModel

LOAD_SILENCE_S_MAX = 1.0
"""The broker reports its load every 250 ms. Without a report for this long there is no broker."""
RATE_MEMORY_S = 15.0
"""Time constant with which a peak of the rate of arriving audio fades. A few speakers who pause at
the same time are no spare capacity."""
NEW_SESSION_S = 5.0
"""Age up to which a session's audio hardly shows in the measured rate: its first utterance has to
end, and the broker averages over some seconds. From then on its expected rate fades."""
KNOWN_SESSION_S = 20.0
"""Age from which it shows in full, and its expected rate is zero."""
NEW_SESSIONS_STEP_S = 0.25
"""Sessions admitted within one step share an age."""
DELAY_MEMORY_S = 1.0
"""Time constant of the average delay: a single pause is no overload."""
BUSY_MEMORY_S = 5.0
"""Time constant of the average busy share."""
UNSEEN_SESSION_S = 2.0
"""Age up to which a session's audio hardly shows in the busy share …"""
SEEN_SESSION_S = 10.0
"""… and from which it shows in full."""
SESSION_BUSY = 0.002
"""Seconds of the event loop per second of audio, until it is measured: twice that of the machine of
docs/performance.md."""
JOIN_BUSY = 0.004
"""Seconds of the event loop for the start of a session, without its audio, until it is measured."""
PRIOR_SESSIONS = 25.0
"""Weight of these two expectations: that of a measurement with this many sessions, and of one with
this many new sessions per second."""
COST_MEMORY_S = 20.0
"""Time constant with which the measurements of both fade."""
WAIT_SPREAD = 0.75
"""Mean remaining time of an utterance that is being recognised, over the mean time of one: half,
and more because long utterances are met more often."""
WAIT_P95_TIMES = 3.0
"""The 95th percentile of a wait over its mean: -ln(0.05), of an exponential distribution."""
WORKERS_CONSIDERED_MAX = 10_000.0
"""Upper end of the search for the number of workers that a model needs …"""
WORKERS_PRECISION = 1.01
"""… and its precision."""
BROKER_DELAY_S_MAX = 1.0
"""The broker answers a HELLO in milliseconds. A longer delay means that jobs wait for the link to
it, or answers for the link back, and results will be late."""
RETRY_AFTER_NO_WORKER_S = 5
RETRY_AFTER_FULL_S = 5
RETRY_AFTER_BACKLOG_S = 15
RETRY_AFTER_BUSY_S = 2
RETRY_AFTER_RAMP_S = 1
RETRIES_PER_S = 50.0
"""Refused clients that are asked to return in the same second."""
RAMP_S = 1.0
"""Sessions that may be admitted at once: those of this time at the maximum rate."""
REOPEN_BELOW = 0.7
"""Hysteresis: once the wait or the delay exceeds its limit, admission refuses until it is below
this share of the limit."""
REOPEN_UTILISATION_BELOW = 0.9
"""The same for utilisation and busy share. Higher, because the capacity in between is unused."""


ResumedAt = Literal["nowhere", "here", "elsewhere"]
"""Location of the session that a client resumes; ``nowhere``: it resumes none. The session's
capacity was reserved at its admission, so only a missing requirement of the resumption refuses it:
none for a session on this gateway, a broker and a worker for one elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The reason, for programs and for people, and the time until another try."""

    code: str
    message: str
    retry_after_s: int
    status: int = 503
    retries_per_s: float = 0.0
    """Of a refusal that concerns all clients: how many may try again per second
    (``gateway.admission.retries``)."""


DRAINING = Refusal(code="draining", message="this gateway is stopping", retry_after_s=1)


class AdmissionLimits(Protocol):
    """The limits among ``gateway.settings.GatewaySettings``, which describes them."""

    max_connections: int
    min_workers: int
    est_wait_ms_max: int
    admit_utilisation_max: float
    admit_p95_ms_max: int
    endpoint_silence_ms: int
    admit_session_audio_rate: float
    admit_sessions_per_s_max: float
    admit_delay_ms_max: int
    admit_busy_max: float


def served_by(load: Load) -> Sequence[ServedModel]:
    """The models of ``load``. A broker of an earlier release reports the sum of all: one model,
    without a name."""
    if load.served or not load.workers:
        return load.served
    whole = ServedModel(
        name="",
        model=", ".join(load.models),
        workers=load.workers,
        workers_busy=load.workers_busy,
        throughput_rtfx=load.throughput_rtfx,
        queued_audio_ms=load.queued_audio_ms,
        est_wait_ms=load.est_wait_ms,
        arriving_audio_rate=load.arriving_audio_rate,
        expected_audio_rate=load.expected_audio_rate,
    )
    return (whole,)


class Admission:
    """Feed it with the ``note_…`` methods, and ask ``decide`` for each new connection, and
    ``decide_model`` once its model is known, if that was not known before.

    In all methods ``own`` is the number of connections of this gateway, ``total`` that of all
    gateways as far as it is known, and ``model`` a served name; None: not known yet.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self._limits = limits
        self._load: Load | None = None
        self._load_at_s = float("-inf")
        self._models: dict[str, _Model] = {}
        self._delay = _Switch(limits.admit_delay_ms_max, REOPEN_BELOW)
        self._broker_delay = _Switch(BROKER_DELAY_S_MAX, REOPEN_BELOW)
        self._links: Sequence[LinkUse] = ()
        self._busy_switch = _Switch(limits.admit_busy_max, REOPEN_UTILISATION_BELOW)
        self._ramp = _Ramp(limits.admit_sessions_per_s_max)
        self._unseen = _NewSessions(UNSEEN_SESSION_S, SEEN_SESSION_S)
        self._loop_cost = _LoopCost()
        self._joined = 0
        """Sessions admitted since the last ``note_busy``."""
        self._audio_rate = self._other = 0.0
        """Recent averages: seconds of audio per second, and the busy share that neither audio nor
        new sessions explain."""
        self._busy_at_s = float("-inf")
        self._delay_ms = 0.0
        self._delay_at_s = float("-inf")
        self._probe_due_s: float | None = None

    # -------------------------------------------------------------------------------- measurements

    def note_load(self, load: Load, now_s: float) -> None:
        self._load, self._load_at_s = load, now_s
        served = {model.name: model for model in served_by(load)}
        self._models = {name: self._models.get(name) or _Model(self._limits) for name in served}
        for name, model in self._models.items():
            model.note(served[name], load.gateways, now_s)

    @property
    def models(self) -> Sequence[str]:
        """Served names in the last load."""
        return tuple(self._models)

    def note_broker_delay(self, delay_s: float) -> None:
        """``delay_s``: age of the oldest HELLO without an answer; 0: all are answered."""
        self._broker_delay.note(delay_s)

    def note_links(self, uses: Sequence[LinkUse]) -> None:
        """``uses``: of the link to each live broker."""
        self._links = uses

    def note_probe_due(self, due_s: float) -> None:
        """A probe frame will enter the event loop and speech detection at ``due_s``."""
        self._probe_due_s = due_s

    def note_probe(self, now_s: float) -> None:
        """The probe frame has passed through."""
        assert self._probe_due_s is not None
        delay_ms = (now_s - self._probe_due_s) * 1000
        weight = min(1.0, (now_s - self._delay_at_s) / DELAY_MEMORY_S)
        self._delay_ms += weight * (delay_ms - self._delay_ms)
        self._delay_at_s = now_s
        self._probe_due_s = None

    def note_busy(self, share: float, now_s: float, *, audio_rate: float) -> None:
        """Since the last call the event loop was busy for this ``share`` of the time, from 0 to 1,
        and processed ``audio_rate`` seconds of audio per second."""
        span_s = now_s - self._busy_at_s
        joins_per_s = self._joined / span_s
        self._loop_cost.note(share, audio_rate, joins_per_s, span_s)
        other = share - self._loop_cost.expected(audio_rate, joins_per_s)
        weight = min(1.0, span_s / BUSY_MEMORY_S)
        self._audio_rate += weight * (audio_rate - self._audio_rate)
        self._other += weight * (other - self._other)
        self._busy_at_s, self._joined = now_s, 0

    # -------------------------------------------------------------------------------------- figures

    def load(self, now_s: float) -> Load | None:
        """The broker's last load; None if it is too old, or there was none."""
        if now_s - self._load_at_s > LOAD_SILENCE_S_MAX:
            return None
        return self._load

    def delay_ms(self, now_s: float) -> float:
        """The average delay of a frame, or the delay so far of the current frame if it is much
        longer."""
        pending_s = 0.0 if self._probe_due_s is None else now_s - self._probe_due_s
        # A late frame counts once it is late for longer than the time constant of the average.
        return max(self._delay_ms, (pending_s - DELAY_MEMORY_S) * 1000)

    def busy(self, now_s: float, *, own: int) -> float:
        """The busy share of the event loop once the new sessions are running.

        Clients that send faster than in real time use all the time there is, and slow down when
        others arrive. So at most one second of audio per second counts for each connection, and one
        for the probe.
        """
        unseen = min(self._unseen.shares(now_s), own)
        in_real_time = min(self._audio_rate, own - unseen + 1)
        other = max(0.0, self._other)
        if self._audio_rate > in_real_time:
            other *= in_real_time / self._audio_rate
        return self._loop_cost.expected(in_real_time + unseen, 0.0) + other

    def next_expected_audio_rates(self, now_s: float, *, own: int) -> tuple[ExpectedAudio, ...]:
        """Seconds of audio per second expected of new sessions and not yet measured, of each model,
        to be sent to the broker now. It sends the sums of all gateways in its load."""
        return tuple(
            ExpectedAudio(model=name, audio_rate=model.next_expected_audio_rate(now_s, own=own))
            for name, model in self._models.items()
        )

    def utilisation(self, now_s: float, *, own: int, total: int) -> float:
        """Utilisation to expect of the workers of the busiest model: by arriving audio, by expected
        audio, and by partial results."""
        if self.load(now_s) is None:
            return 0.0
        used = (model.utilisation(now_s, own=own, total=total) for model in self._models.values())
        return max(used, default=0.0)

    def workers_needed(self, now_s: float, *, own: int, total: int) -> dict[str, float]:
        """Workers needed by each model, as a fraction: ``own`` and ``total`` are the connections
        without a further one. A model without workers is missing: their speed is not known."""
        if self.load(now_s) is None:
            return {}
        return {
            name: model.workers_needed(now_s, own=own, total=total)
            for name, model in self._models.items()
            if model.served.workers and model.served.throughput_rtfx > 0
        }

    def link_utilisation(self, now_s: float, *, own: int, total: int, more: int = 0) -> float:
        """Utilisation to expect of the fullest link to a broker, or from it to its workers, with
        ``more`` sessions than now; 0: none was ever full."""
        each = self._limits.admit_session_audio_rate
        expected = [model.expected_audio_rate(now_s, own=own) for model in self._models.values()]
        to_brokers = links.utilisation(
            self._links,
            sharing=len(self._links),
            expected_audio_rate=sum(expected),
            present_audio_rate=each * own,
            next_audio_rate=each * more,
        )
        load = self.load(now_s)
        if load is None or not load.workers_link_rate:
            return to_brokers
        # The audio that other gateways expect is as of the last report.
        of_all = max(sum(expected), load.expected_audio_rate)
        workers = LinkUse(
            sent=load.workers_sent_rate,
            sent_peak=load.workers_sent_peak_rate,
            capacity=load.workers_link_rate,
        )
        to_workers = links.utilisation(
            [workers],
            sharing=len(self._links),
            expected_audio_rate=of_all,
            present_audio_rate=each * max(total, own * load.gateways),
            next_audio_rate=each * more,
        )
        return max(to_brokers, to_workers)

    def readiness(self, now_s: float, model: str | None = None) -> Refusal | None:
        """The reason why this gateway is not ready, if so: no broker, or too few workers of
        ``model``, or of each model."""
        if self.load(now_s) is None:
            return _to_all("no_broker", "the broker does not answer", RETRY_AFTER_NO_WORKER_S)
        needed = max(1, self._limits.min_workers)
        ready = {name: each.served.workers for name, each in self._models.items()}
        workers = max(ready.values(), default=0) if model is None else ready.get(model, 0)
        if workers < needed:
            of_model = f" of model {model}" if model and len(ready) > 1 else ""
            message = f"{workers} workers{of_model} are ready, {needed} are needed"
            if model and ready and model not in ready:
                message = f"no worker serves model {model}; served models: {', '.join(ready)}"
            return _to_all("no_worker", message, RETRY_AFTER_NO_WORKER_S)
        return None

    # ------------------------------------------------------------------------------------- decision

    def decide(
        self,
        now_s: float,
        *,
        own: int,
        total: int,
        backlog_full: bool,
        draining: bool,
        resumed_at: ResumedAt = "nowhere",
        model: str | None = None,
        lane: Lane = "live",
    ) -> Refusal | None:
        """Decide by the state known to this gateway; ``own`` and ``total`` include the connection
        in question. A file is of the lane ``bulk``.

        None: it is admitted unless ``count`` refuses it, and the caller must call
        ``note_admitted`` at once.
        """
        if draining:
            return DRAINING
        if resumed_at == "here":
            return None
        if resumed_at == "elsewhere":
            # The sessions of a killed gateway arrive together; each costs a claim and a query.
            return self.readiness(now_s) or self._too_many_at_once(now_s)
        if backlog_full:
            message = "too many records wait to be stored"
            return _to_all("storage_backlog", message, RETRY_AFTER_BACKLOG_S)
        if (refusal := self._by_model(now_s, own, total, model, lane)) is not None:
            return refusal
        if lane == "bulk" or own <= 1:
            return self._too_many_at_once(now_s)
        return self._overloaded(now_s, own, total)

    def decide_model(
        self, now_s: float, *, own: int, total: int, model: str, lane: Lane = "live"
    ) -> Refusal | None:
        """Decide by the workers of ``model`` alone, for a connection that was admitted without it.
        None: admitted, and the caller must call ``note_model`` at once."""
        refusal = self.readiness(now_s, model)
        if refusal is not None or lane == "bulk" or own <= 1:
            return refusal
        return self._models[model].overloaded(now_s, own=own, total=total)

    def note_admitted(self, now_s: float, model: str | None = None) -> None:
        """A session is admitted, and counts as new from now on."""
        self._ramp.take(now_s)
        self._unseen.add(now_s)
        self._joined += 1
        if model is not None:
            self.note_model(now_s, model)

    def note_model(self, now_s: float, model: str) -> None:
        """A new session has this model."""
        if model in self._models:
            self._models[model].new.add(now_s)

    def must_count(self, *, connections: int, gateways: int, known_s: float) -> bool:
        """Whether ``count`` may refuse: all gateways, of which there are this many or one more, had
        this many connections ``known_s`` ago, and none is faster than the limit of new sessions per
        second."""
        connections_max, per_s = self._limits.max_connections, self._limits.admit_sessions_per_s_max
        if not (connections_max and per_s):
            return connections_max > 0
        since = (gateways + 1) * per_s * (known_s + RAMP_S)
        return connections + since > connections_max

    def count(self, *, connections: int) -> Refusal | None:
        """Decide by the connections of all gateways, the one in question included."""
        connections_max = self._limits.max_connections
        if connections_max and connections > connections_max:
            message = f"all {connections_max} connections are in use"
            return _to_all("max_connections", message, RETRY_AFTER_FULL_S)
        return None

    def _by_model(
        self, now_s: float, own: int, total: int, model: str | None, lane: Lane
    ) -> Refusal | None:
        """Without a model: whether there is room for another session of any."""
        if model is not None:
            return self.decide_model(now_s, own=own, total=total, model=model, lane=lane)
        if (refusal := self.readiness(now_s)) is not None:
            return refusal
        refusals = [
            self.decide_model(now_s, own=own, total=total, model=name, lane=lane)
            for name in self._models
        ]
        return None if None in refusals else refusals[0]

    def _overloaded(self, now_s: float, own: int, total: int) -> Refusal | None:
        link = self.link_utilisation(now_s, own=own - 1, total=total - 1, more=1)
        if self._broker_delay.on or link > links.LINK_UTILISATION_MAX:
            return _overload("a link of the bus is saturated", RETRY_AFTER_BUSY_S)
        busy = self._busy_switch.note(self.busy(now_s, own=own))
        if self._delay.note(self.delay_ms(now_s)) or busy:
            return _overload("this gateway is at capacity", RETRY_AFTER_BUSY_S)
        return self._too_many_at_once(now_s)

    def _too_many_at_once(self, now_s: float) -> Refusal | None:
        if self._ramp.left(now_s) < 1:
            refusal = _overload("too many new sessions per second", RETRY_AFTER_RAMP_S)
            return replace(refusal, retries_per_s=self._limits.admit_sessions_per_s_max)
        return None


def _to_all(code: str, message: str, retry_after_s: int) -> Refusal:
    """The refusal of any client."""
    return Refusal(
        code=code, message=message, retry_after_s=retry_after_s, retries_per_s=RETRIES_PER_S
    )


def _overload(message: str, retry_after_s: int) -> Refusal:
    return _to_all("overloaded", message, retry_after_s)


class _Model:
    """The load of one model's workers, and the sessions that this gateway has added to it."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self.served = ServedModel(name="", model="", workers=0)
        self.new = _NewSessions(NEW_SESSION_S, KNOWN_SESSION_S)
        self._gateways = 1
        self._noted_s = 0.0
        self._arriving = 0.0
        """Recent peak of the rate of arriving audio."""
        self._session_audio_rate = limits.admit_session_audio_rate
        self._endpoint_silence_ms = limits.endpoint_silence_ms
        self._wait = _Switch(limits.est_wait_ms_max, REOPEN_BELOW)
        self._utilisation = _Switch(limits.admit_utilisation_max, REOPEN_UTILISATION_BELOW)
        self._result = _Switch(limits.admit_p95_ms_max, REOPEN_UTILISATION_BELOW)
        self._sent_audio_rate = self._in_load_audio_rate = 0.0
        """The expected rate last sent to the broker, and the part of it in the broker's load."""

    def note(self, served: ServedModel, gateways: int, now_s: float) -> None:
        faded = self._arriving * math.exp((self._noted_s - now_s) / RATE_MEMORY_S)
        self._arriving = max(served.arriving_audio_rate, faded)
        self.served, self._gateways, self._noted_s = served, gateways, now_s
        self._in_load_audio_rate = self._sent_audio_rate
        self._wait.note(served.est_wait_ms)

    def expected_audio_rate(self, now_s: float, *, own: int) -> float:
        """Seconds of audio per second expected of new sessions and not yet measured."""
        # Sessions that have ended count no more: at most one share for each connection.
        return self._session_audio_rate * min(self.new.shares(now_s), own)

    def next_expected_audio_rate(self, now_s: float, *, own: int) -> float:
        """The same, to be sent to the broker now."""
        self._sent_audio_rate = self.expected_audio_rate(now_s, own=own)
        return self._sent_audio_rate

    def utilisation(self, now_s: float, *, own: int, total: int) -> float:
        return self._by_finals(now_s, own, total) + self._by_partials

    def _by_finals(self, now_s: float, own: int, total: int) -> float:
        """Share of the workers' time that final results take soon."""
        served = self.served
        if served.throughput_rtfx <= 0:
            return 0.0
        since_audio_rate = self.expected_audio_rate(now_s, own=own) - self._in_load_audio_rate
        # Each of the other gateways has probably admitted as many since then.
        since_audio_rate *= max(1, self._gateways) if since_audio_rate > 0 else 1
        used = self._arriving + served.expected_audio_rate + since_audio_rate
        # A session that is new and heard already counts twice in this sum, and one that has left
        # counts in the peak. Present ones say no more than this, unless more arrives.
        present = max(total, own * self._gateways)
        used = max(served.arriving_audio_rate, min(used, self._session_audio_rate * present))
        return used / served.throughput_rtfx

    @property
    def _by_partials(self) -> float:
        """Share of the workers' time that partial results take."""
        return self.served.partials_busy / max(1, self.served.workers)

    def overloaded(self, now_s: float, *, own: int, total: int) -> Refusal | None:
        wait_ms = self.served.est_wait_ms
        if self._wait.on:
            retry_s = max(1, -(-wait_ms // 1000))
            return _overload(f"results would take about {wait_ms} ms", retry_s)
        # With this session included, so that the limits are not exceeded by one.
        finals = self._by_finals(now_s, own - 1, total - 1)
        finals += self._session_audio_rate / max(self.served.throughput_rtfx, 1e-9)
        workers = max(1, self.served.workers)
        p95_ms = self._result_p95_ms(workers, finals, min(1.0, finals + self._by_partials))
        late = self._result.note(p95_ms)
        if self._utilisation.note(finals + self._by_partials) or late:
            return _overload("the workers are at capacity", RETRY_AFTER_BUSY_S)
        return None

    def workers_needed(self, now_s: float, *, own: int, total: int) -> float:
        """Workers at the present speed, of which there must be one, with which admission opens to
        a further session, even if it is closed now."""
        served = self.served
        finals = served.workers * self._by_finals(now_s, own, total)
        finals += served.workers * self._session_audio_rate / served.throughput_rtfx
        busy = finals + served.partials_busy
        needed = busy / (self._utilisation.open_below or 1.0)
        if needed == 0.0 or not self._waits_too_long(needed, finals, busy):
            return needed
        if self._waits_too_long(WORKERS_CONSIDERED_MAX, finals, busy):
            return needed  # A single utterance takes too long, which no worker changes.
        low, high = needed, WORKERS_CONSIDERED_MAX
        while high > WORKERS_PRECISION * low:
            middle = math.sqrt(low * high)
            if self._waits_too_long(middle, finals, busy):
                low = middle
            else:
                high = middle
        return high

    def _waits_too_long(self, workers: float, finals: float, busy: float) -> bool:
        """With this many workers, of which ``finals`` and ``busy`` are in use."""
        limit_ms = self._result.open_below
        p95_ms = self._result_p95_ms(workers, finals / workers, min(1.0, busy / workers))
        return 0 < limit_ms <= p95_ms

    def _result_p95_ms(self, workers: float, finals: float, busy: float) -> float:
        """Expected 95th percentile of the time from the end of an utterance to its result, when
        final results use the share ``finals`` of the workers, and all results ``busy``.

        An utterance waits if all workers are busy, with partial results as well; it waits for one
        of them and for the utterances before it (M/G/c queue, the approximation of Sakasegawa 1977,
        doi:10.1007/BF02532808).
        """
        if finals >= 1:
            return math.inf
        utterance_ms = self.served.utterance_ms
        all_busy = math.pow(busy, math.sqrt(2 * (workers + 1)) - 1)
        wait_ms = all_busy * WAIT_SPREAD * utterance_ms / workers / (1 - finals)
        return self._endpoint_silence_ms + utterance_ms + WAIT_P95_TIMES * wait_ms


class _LoopCost:
    """Estimates the event loop's time for a second of audio (steady) and for the start of a session
    (join): the least squares, recent measurements weighing more, of

    busy share = steady × audio rate + join × new sessions per second
    """

    def __init__(self) -> None:
        # Weighted sums of squares and products, as the normal equations need them.
        self._audio2 = self._joins2 = PRIOR_SESSIONS**2
        self._audio_joins = 0.0
        self._audio_share = PRIOR_SESSIONS**2 * SESSION_BUSY
        self._joins_share = PRIOR_SESSIONS**2 * JOIN_BUSY

    def note(self, share: float, audio_rate: float, joins_per_s: float, span_s: float) -> None:
        keep = math.exp(-span_s / COST_MEMORY_S)
        # The expectations do not fade.
        rest = (1 - keep) * PRIOR_SESSIONS**2
        self._audio2 = keep * self._audio2 + rest + audio_rate**2
        self._joins2 = keep * self._joins2 + rest + joins_per_s**2
        self._audio_joins = keep * self._audio_joins + audio_rate * joins_per_s
        self._audio_share = keep * self._audio_share + rest * SESSION_BUSY + audio_rate * share
        self._joins_share = keep * self._joins_share + rest * JOIN_BUSY + joins_per_s * share

    def expected(self, audio_rate: float, joins_per_s: float) -> float:
        """Return the busy share for this much audio, and this many new sessions, per second."""
        determinant = self._audio2 * self._joins2 - self._audio_joins**2
        steady = self._audio_share * self._joins2 - self._joins_share * self._audio_joins
        join = self._joins_share * self._audio2 - self._audio_share * self._audio_joins
        steady_s, join_s = max(0.0, steady / determinant), max(0.0, join / determinant)
        return audio_rate * steady_s + joins_per_s * join_s


class _Switch:
    """On above a limit, off below a share of it (hysteresis)."""

    def __init__(self, limit: float, reopen_below: float) -> None:
        self._limit = limit
        self.open_below = limit * reopen_below
        """0: there is no limit."""
        self.on = False

    def note(self, value: float) -> bool:
        if value > self._limit > 0:
            self.on = True
        elif value < self.open_below:
            self.on = False
        return self.on


class _Ramp:
    """A token bucket: ``per_s`` tokens a second, and at most those of ``RAMP_S``."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = self._most = max(1.0, per_s * RAMP_S)
        self._at_s: float | None = None

    def left(self, now_s: float) -> float:
        """Sessions that may be admitted now."""
        if not self._per_s:
            return math.inf
        if self._at_s is not None:
            self._left = min(self._most, self._left + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._left

    def take(self, now_s: float) -> None:
        self._left = self.left(now_s) - 1


class _NewSessions:
    """Admissions of the last ``known_s``. Each counts as one share up to the age of ``new_s``, then
    less and less."""

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
