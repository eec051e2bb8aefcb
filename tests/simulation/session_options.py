"""What one seed means for whole sessions: clients, gateways, broker, workers and persistence."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from broker.limits import Limits
from tests.simulation.options import ATTEMPT_DEADLINE_S, FAULTS, LEASE_S, Options, draw_faults

SESSION_FAULTS: dict[str, tuple[float, float]] = {
    **{
        name: FAULTS[name]
        for name in (
            "worker_kills",
            "worker_stops",
            "worker_hangs",
            "worker_byes",
            "gateway_cuts",
            "broker_stops",
            "duplication",
        )
    },
    "loss": (0.4, 0.25),
    "broker_restarts": (0.2, 0.6),
    "persistence_restarts": (0.25, 0.6),
    "gateway_kills": (0.4, 0.5),
    "gateway_stops": (0.2, 0.4),
    "gateway_drains": (0.3, 0.5),
    "database_outages": (0.2, 0.4),
    "client_drops": (0.4, 1.0),
    "client_clogs": (0.2, 0.6),
    "client_leaves": (0.25, 0.3),
    "poison": (0.2, 0.2),
}
"""Share of unfocused seeds that have this kind of fault, and how often it happens at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions(Options):
    speed: float
    """How much faster than speech clients send."""
    chunk_ms: int
    binary: bool
    """Chunks as binary frames and not as JSON."""
    detect_s_max: float
    """How long speech detection takes for a chunk, at most."""
    resume_wait_s: float
    batch_rows_max: int
    pending_rows_max: int
    commit_s_max: float
    gateway_stops: float
    gateway_drains: float
    database_outages: float
    client_drops: float
    client_clogs: float
    client_leaves: float

    @classmethod
    def draw(cls, rng: Random) -> SessionOptions:
        faults = draw_faults(rng, SESSION_FAULTS)
        return cls(
            gateways=rng.randint(1, 3),
            workers=rng.randint(1, 3),
            sessions=rng.randint(1, 3),
            segments_max=rng.randint(1, 5),
            greedy_segments=0,
            batch_jobs_max=rng.choice((1, 2, 4)),
            batch_s_max=rng.choice((0.05, 0.1, 0.4)),
            partials=rng.random() < 0.3,
            bulk=False,
            small_queue=rng.random() < 0.1,
            fault_s=rng.uniform(2.0, 6.0),
            reorder=False,
            slow_workers=rng.random() < 0.2,
            accents=True,
            cost_ratio_max=100,
            worker_lies=0.0,
            cancels=0.0,
            moves=0.0,
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

    @property
    def limits(self) -> Limits:
        return Limits(
            queue_audio_ms_max=4_000 if self.small_queue else 600_000,
            queue_jobs_max=2 if self.small_queue else 1_000,
            lease_s=LEASE_S,
            attempt_deadline_s=ATTEMPT_DEADLINE_S,
        )
