"""The options of a schedule: the size of its world, and its kinds of fault, drawn from the seed.

Each kind of fault is off in many seeds: where everything fails all the time, the effects of one
kind alone stay hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any, NamedTuple

from broker.limits import Limits

LEASE_S = 1.5
ATTEMPT_DEADLINE_S = 2.5
JOB_DEADLINE_MS = 120_000
"""Longer than any schedule: no segment may end by its deadline, unless a check asks for it."""
FOCUSED_SHARE = 0.4
"""Share of seeds with one or two kinds of fault only."""


class Rate(NamedTuple):
    share: float
    """Share of unfocused seeds that have this kind of fault."""
    rate_max: float
    """Per second of phase 1 over all peers."""


FAULTS: dict[str, tuple[Rate | None, Rate | None]] = {
    "worker_kills": (Rate(0.3, 0.5), Rate(0.3, 0.5)),
    "worker_stops": (Rate(0.2, 0.4), Rate(0.2, 0.4)),
    "worker_hangs": (Rate(0.15, 0.3), Rate(0.15, 0.3)),
    "worker_byes": (Rate(0.25, 0.5), Rate(0.25, 0.5)),
    "worker_lies": (None, Rate(0.1, 1.0)),
    "gateway_cuts": (Rate(0.15, 0.3), Rate(0.15, 0.3)),
    "broker_stops": (Rate(0.1, 0.2), Rate(0.1, 0.2)),
    "duplication": (Rate(0.2, 0.15), Rate(0.2, 0.15)),
    "loss": (Rate(0.4, 0.25), Rate(0.2, 0.08)),
    "broker_restarts": (Rate(0.2, 0.6), Rate(0.3, 3.0)),
    "persistence_restarts": (Rate(0.25, 0.6), Rate(0.2, 0.3)),
    "gateway_kills": (Rate(0.4, 0.5), Rate(0.2, 0.6)),
    "gateway_stops": (Rate(0.2, 0.4), None),
    "gateway_drains": (Rate(0.3, 0.5), None),
    "database_outages": (Rate(0.2, 0.4), Rate(0.1, 0.3)),
    "client_drops": (Rate(0.4, 1.0), None),
    "client_clogs": (Rate(0.2, 0.6), None),
    "client_leaves": (Rate(0.25, 0.3), None),
    "poison": (Rate(0.2, 0.2), Rate(0.15, 0.2)),
    "cancels": (None, Rate(0.2, 0.4)),
    "moves": (None, Rate(0.2, 0.6)),
}
"""The kinds of fault with real gateways, and without. ``loss`` and ``duplication`` are shares of
messages, ``poison`` is a share of segments."""

LOSSES = (
    "loss",
    "gateway_cuts",
    "gateway_stops",
    "broker_restarts",
    "broker_stops",
    "broker_ends",
    "broker_joins",
    "partitions",
    "isolations",
    "database_outages",
)
"""Faults other than restarts of persistence that lose records, or delay their confirmation."""

LONG_STOPS_SHARE = 0.04
"""Share of seeds in which brokers are stopped for long."""
LONG_STOPS_FAULT_S_MIN = 6.0
BROKERS_SHARE = 0.2
"""Share of seeds with several brokers."""
BROKER_FAULTS = {
    "broker_ends": Rate(0.4, 0.3),
    "broker_joins": Rate(0.4, 0.4),
    "partitions": Rate(0.7, 0.6),
    "isolations": Rate(0.3, 0.3),
}
"""In those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    real_gateways: bool
    """Real gateways and clients; else gateways that only send jobs (``job_gateways``)."""
    gateways: int
    workers: int
    brokers: int
    """At the beginning."""
    models: int
    """Workers and sessions are divided among them."""
    speakers: bool
    """Clients ask for speakers, and speak for longer."""
    sessions: int
    segments_max: int
    """Per session."""
    greedy_segments: int
    """Segments that the first session sends at once, while each other session sends its next one
    after the answer to the last: the case in which a scheduler has to be fair."""
    batch_jobs_max: int
    batch_s_max: float
    partials: bool
    streamed_jobs_max: int
    """Partial jobs in a batch of a worker with a streaming model; 0: no such workers."""
    streaming_share: float
    """Share of the workers with a streaming model, as in a rolling upgrade."""
    bulk: bool
    small_queue: bool
    fault_s: float
    """Length of phase 1, with faults."""
    reorder: bool
    slow_workers: bool
    long_stops: bool
    """A broker may be stopped for so long that its peers make new connections."""
    speed: float
    """How much faster than real time clients send."""
    chunk_ms: int
    binary: bool
    """Chunks as binary frames instead of JSON."""
    detect_s_max: float
    """The longest time that speech detection takes for a chunk."""
    resume_wait_s: float
    batch_rows_max: int
    pending_rows_max: int
    commit_s_max: float
    # The kinds of fault. 0: off.
    worker_kills: float = 0.0
    worker_stops: float = 0.0
    worker_hangs: float = 0.0
    worker_byes: float = 0.0
    worker_lies: float = 0.0
    gateway_kills: float = 0.0
    gateway_cuts: float = 0.0
    gateway_stops: float = 0.0
    gateway_drains: float = 0.0
    broker_restarts: float = 0.0
    broker_stops: float = 0.0
    persistence_restarts: float = 0.0
    database_outages: float = 0.0
    client_drops: float = 0.0
    client_clogs: float = 0.0
    client_leaves: float = 0.0
    cancels: float = 0.0
    moves: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0
    poison: float = 0.0
    """Share of segments that crash the worker that recognises them."""
    model_outages: float = 0.0
    """A model loses all its workers for a while. The supervisor does not restart them."""
    broker_ends: float = 0.0
    """For good."""
    broker_joins: float = 0.0
    partitions: float = 0.0
    """Cuts between one broker and some of its peers. Lost connections are made again."""
    isolations: float = 0.0
    """Such cuts that stay after the heal."""

    @classmethod
    def draw(cls, rng: Random, *, real_gateways: bool) -> Options:
        """The order of the draws is part of the meaning of a seed."""
        faults = _draw_faults(rng, real_gateways)
        real = real_gateways
        greedy = not real and rng.random() < 0.08
        return cls(
            real_gateways=real,
            gateways=rng.randint(1, 3),
            workers=rng.randint(1, 3 if real else 2 if greedy else 4),
            brokers=1,
            models=1,
            speakers=False,
            sessions=rng.randint(4, 7) if greedy else rng.randint(1, 3 if real else 6),
            segments_max=20 if greedy else rng.randint(1, 5),
            greedy_segments=90 if greedy else 0,
            batch_jobs_max=1 if greedy else rng.choice((1, 2, 4)),
            batch_s_max=0.1 if greedy else rng.choice((0.05, 0.1, 0.4)),
            partials=rng.random() < (0.3 if real else 0.4),
            streamed_jobs_max=0,
            streaming_share=0.0,
            bulk=not real and rng.random() < 0.3,
            small_queue=rng.random() < (0.1 if real else 0.25) and not greedy,
            fault_s=rng.uniform(1.0, 3.0) if greedy else rng.uniform(2.0, 6.0),
            reorder=not real and rng.random() < 0.15,
            slow_workers=rng.random() < (0.2 if real else 0.3) and not greedy,
            long_stops=False,
            speed=rng.choice((1.0, 2.0, 8.0)),
            chunk_ms=rng.choice((200, 300, 500)),
            binary=rng.random() < 0.5,
            detect_s_max=rng.choice((0.02, 0.02, 0.5)),
            resume_wait_s=rng.choice((2.0, 6.0, 12.0)),
            batch_rows_max=rng.choice((1, 4, 50)),
            pending_rows_max=rng.choice((12, 1_000)),
            commit_s_max=rng.choice((0.01, 0.05, 0.6)),
            **faults,
        )

    def with_models(self, rng: Random) -> Options:
        """Several models in some schedules. ``rng`` is not that of ``draw``, so that seeds of the
        time before models keep their meaning."""
        if self.workers < 2 or self.greedy_segments or rng.random() < 0.6:
            return self
        outages = rng.uniform(0.1, 0.5) if rng.random() < 0.6 else 0.0
        models = rng.randint(2, self.workers)
        return replace(self, models=models, model_outages=outages)

    def with_brokers(self, rng: Random) -> Options:
        """Several brokers, and connections that break, in some schedules. ``rng`` is not that of
        ``draw``."""
        if self.greedy_segments or rng.random() >= BROKERS_SHARE:
            return self
        brokers = rng.choice((1, 2, 2, 2, 3))
        rates: dict[str, Any] = {
            name: rate_max * rng.uniform(0.3, 1.0) if rng.random() < share else 0.0
            for name, (share, rate_max) in BROKER_FAULTS.items()
        }
        return replace(self, brokers=brokers, **rates)

    def with_speakers(self, rng: Random) -> Options:
        """Speakers in some schedules with real gateways. ``rng`` is not that of ``draw``."""
        return replace(self, speakers=self.real_gateways and rng.random() < 0.3)

    def with_streams(self, rng: Random) -> Options:
        """Streaming models in half of the schedules with partial jobs. ``rng`` is not that of
        ``draw``, as in ``with_models``."""
        if not self.partials or rng.random() < 0.5:
            return self
        share = 1.0 if rng.random() < 0.7 else 0.5
        return replace(self, streamed_jobs_max=rng.choice((1, 2, 4)), streaming_share=share)

    def with_long_stops(self, rng: Random) -> Options:
        """Long stops of brokers in some schedules, with few credits: then a worker soon holds more
        jobs than its credits, because the broker uses them before it has received the ``Ready`` of
        a new connection, and again after. ``rng`` is not that of ``draw``."""
        if self.greedy_segments or rng.random() >= LONG_STOPS_SHARE:
            return self
        return replace(
            self,
            long_stops=True,
            broker_stops=rng.uniform(0.3, 0.6),
            batch_jobs_max=1,
            fault_s=max(self.fault_s, LONG_STOPS_FAULT_S_MIN),
        )

    @property
    def reconnects(self) -> bool:
        """Peers notice lost connections."""
        return bool(self.brokers > 1 or self.broker_joins or self.partitions or self.long_stops)

    @property
    def only_persistence_loses_records(self) -> bool:
        """Records are lost only while persistence restarts, and are written without delay."""
        writes_at_once = (
            self.commit_s_max < 0.1 and self.batch_rows_max > 1 and self.pending_rows_max > 100
        )
        return writes_at_once and not any(getattr(self, name) for name in LOSSES)

    @property
    def uses_loads(self) -> bool:
        """With one broker, gateways that only send jobs do not use its load reports."""
        return self.real_gateways or self.reconnects

    @property
    def accents(self) -> bool:
        """Two workers spell the same audio differently, as models do in different batches."""
        return self.real_gateways

    @property
    def cost_ratio_max(self) -> int:
        """Length of the longest segment over that of the shortest."""
        return 100 if self.real_gateways else 3

    @property
    def limits(self) -> Limits:
        small_ms, large_ms = (4_000, 600_000) if self.real_gateways else (60, 100_000)
        small_jobs = 2 if self.real_gateways else 4
        return Limits(
            queue_audio_ms_max=small_ms if self.small_queue else large_ms,
            queue_jobs_max=small_jobs if self.small_queue else 1_000,
            lease_s=LEASE_S,
            attempt_deadline_s=ATTEMPT_DEADLINE_S,
        )

    @property
    def only_poison(self) -> bool:
        """Attempts are lost only with workers that a poison segment killed."""
        return not (
            self.worker_kills
            or self.worker_stops
            or self.worker_hangs
            or self.worker_byes
            or self.worker_lies
            or self.model_outages
            or self.partitions
            or self.isolations
            or self.loss
            or self.duplication
            or self.reorder
            or self.broker_stops
            or self.slow_workers
        )

    def __str__(self) -> str:
        shown = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in shown
            if value
        )


def _draw_faults(rng: Random, real_gateways: bool) -> dict[str, float]:
    """The rate of each kind of fault; 0 for many kinds in many seeds."""
    rates = {name: with_or_without[not real_gateways] for name, with_or_without in FAULTS.items()}
    kinds = {name: rate for name, rate in rates.items() if rate is not None}
    shares = {name: rate.share for name, rate in kinds.items()}
    if rng.random() < FOCUSED_SHARE:
        chosen = rng.sample(sorted(kinds), rng.randint(1, 2))
        shares = {name: float(name in chosen) for name in kinds}
    return {
        name: kinds[name].rate_max * rng.uniform(0.3, 1.0) if rng.random() < share else 0.0
        for name, share in shares.items()
    }
