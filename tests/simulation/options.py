"""What one seed means: the size of its world, and which kinds of fault it has.

Each kind of fault is off in many seeds: where everything fails all the time, what one kind alone
can do stays hidden behind the others.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random

from broker.limits import Limits

FOCUSED_SHARE = 0.4
FAULTS: dict[str, tuple[float, float]] = {
    "worker_kills": (0.3, 0.5),
    "worker_stops": (0.2, 0.4),
    "worker_hangs": (0.15, 0.3),
    "worker_byes": (0.25, 0.5),
    "worker_lies": (0.1, 1.0),
    "gateway_kills": (0.2, 0.6),
    "gateway_cuts": (0.15, 0.3),
    "broker_restarts": (0.2, 1.0),
    "broker_stops": (0.1, 0.2),
    "persistence_restarts": (0.2, 0.3),
    "cancels": (0.2, 0.4),
    "moves": (0.2, 0.6),
    "loss": (0.2, 0.08),
    "duplication": (0.2, 0.15),
    "poison": (0.15, 0.2),
}
"""Share of unfocused seeds that have this kind of fault, and how often it happens at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    gateways: int
    workers: int
    sessions: int
    segments_max: int
    """Per session; audio of each is 10 to 30 ms, because only proportions matter."""
    greedy_segments: int
    """Segments that the first session hands in at once, while the others hand in each of theirs
    when the one before is answered: what a scheduler has to be fair to."""
    batch_jobs_max: int
    batch_s_max: float
    partials: bool
    bulk: bool
    small_queue: bool
    fault_s: float
    """Length of phase 1, with faults."""
    # How often each kind happens, per second of phase 1 and over all peers. 0: this kind is off.
    worker_kills: float
    worker_stops: float
    worker_hangs: float
    worker_byes: float
    worker_lies: float
    gateway_kills: float
    gateway_cuts: float
    broker_restarts: float
    broker_stops: float
    persistence_restarts: float
    cancels: float
    moves: float
    # Per message.
    loss: float
    duplication: float
    reorder: bool
    poison: float
    """Share of segments that crash whoever recognises them."""
    slow_workers: bool
    accents: bool
    """Two workers spell the same audio differently, as models do in different batches."""
    cost_ratio_max: int
    """The longest segment is so many times the shortest."""

    @classmethod
    def draw(cls, rng: Random) -> Options:
        faults = draw_faults(rng, FAULTS)
        greedy = rng.random() < 0.08
        return cls(
            gateways=rng.randint(1, 3),
            workers=rng.randint(1, 2) if greedy else rng.randint(1, 4),
            sessions=rng.randint(4, 7) if greedy else rng.randint(1, 6),
            segments_max=20 if greedy else rng.randint(1, 5),
            greedy_segments=90 if greedy else 0,
            batch_jobs_max=1 if greedy else rng.choice((1, 2, 4)),
            batch_s_max=0.1 if greedy else rng.choice((0.05, 0.1, 0.4)),
            partials=rng.random() < 0.4,
            bulk=rng.random() < 0.3,
            small_queue=rng.random() < 0.25 and not greedy,
            fault_s=rng.uniform(1.0, 3.0) if greedy else rng.uniform(2.0, 6.0),
            reorder=rng.random() < 0.15,
            slow_workers=rng.random() < 0.3 and not greedy,
            accents=False,
            cost_ratio_max=3,
            **faults,
        )

    @property
    def limits(self) -> Limits:
        return Limits(
            queue_audio_ms_max=60 if self.small_queue else 100_000,
            queue_jobs_max=4 if self.small_queue else 1_000,
            lease_s=LEASE_S,
            attempt_deadline_s=ATTEMPT_DEADLINE_S,
        )

    @property
    def only_poison(self) -> bool:
        """No attempt can be lost but by a worker that a poison segment killed."""
        return not (
            self.worker_kills
            or self.worker_stops
            or self.worker_hangs
            or self.worker_byes
            or self.worker_lies
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


def draw_faults(rng: Random, known: dict[str, tuple[float, float]]) -> dict[str, float]:
    """How often each kind happens: not at all in many seeds."""
    kinds = dict(known)
    if rng.random() < FOCUSED_SHARE:
        # One or two kinds alone, and surely.
        chosen = rng.sample(sorted(known), rng.randint(1, 2))
        kinds = {kind: (float(kind in chosen), most) for kind, (_, most) in known.items()}
    return {
        kind: most * rng.uniform(0.3, 1.0) if rng.random() < share else 0.0
        for kind, (share, most) in kinds.items()
    }


LEASE_S = 1.5
ATTEMPT_DEADLINE_S = 2.5
JOB_DEADLINE_MS = 120_000
"""Longer than any schedule: no segment may end by its deadline, except where a check asks."""
HEAL_S_MAX = 90.0
"""Everything has to be answered by then, counted from the end of the faults."""
