"""The broker's processor time for one job and its result without sockets, by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from broker import events as e
from broker.routing import Broker
from broker.settings import BrokerSettings
from tools.lab.bench.codec import JOB
from tools.lab.bench.figures import Figure
from wire import codec
from wire import messages as m

PAIRS = 20_000
TOGETHER = 500
"""Jobs that are sent before their results."""
ROUNDS = 3
SESSIONS = 100
GATEWAY, WORKER = b"bench-gateway", b"bench-worker"


class Stages:
    """Seconds of processor time spent so far, by stage."""

    def __init__(self) -> None:
        self.spent_s = dict.fromkeys(("decoding", "routing", "encoding"), 0.0)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began_s = time.process_time()
        yield
        self.spent_s[stage] += time.process_time() - began_s


def _pass_through(
    core: Broker, stages: Stages, received: type, identity: bytes, frames: list[list[bytes]]
) -> None:
    """Decode, route and encode a batch: timing each message would cost as much as a stage."""
    with stages.timed("decoding"):
        messages = [codec.decode(each) for each in frames]
    with stages.timed("routing"):
        actions = [
            action
            for message in messages
            for action in core.handle(received(identity, message), 1.0)
        ]
    with stages.timed("encoding"):
        for action in actions:
            if not isinstance(action, e.Count | e.Answered | e.LeaseEnded):
                codec.encode(action.message)


def microseconds(*, subscriber: bool) -> dict[str, float]:
    """Processor time of one pair, by stage."""
    core = Broker(epoch="epoch" * 6, limits=BrokerSettings.model_construct().limits(), system_id="")
    core.handle(e.FrontReceived(GATEWAY, m.Hello(gateway_id=GATEWAY.decode())), 0.0)
    ready = m.Ready(worker_id=WORKER.decode(), credits=2 * TOGETHER, model="", device="")
    core.handle(e.BackReceived(WORKER, ready), 0.0)
    core.handle(e.SubscriptionChanged(b"", subscriber), 0.0)
    jobs = [
        codec.encode(replace(JOB, session_id=f"session-{n % SESSIONS}", seq=n // SESSIONS))
        for n in range(PAIRS)
    ]
    answer = m.WorkerResult(
        broker_epoch=core.epoch,
        job_id=0,
        attempt=1,
        text="one two three",
        error=None,
        tokens=(),
        infer_ms=1,
    )
    answers = [codec.encode(replace(answer, job_id=n + 1)) for n in range(PAIRS)]
    stages = Stages()
    for begin in range(0, PAIRS, TOGETHER):
        some = slice(begin, begin + TOGETHER)
        _pass_through(core, stages, e.FrontReceived, GATEWAY, jobs[some])
        _pass_through(core, stages, e.BackReceived, WORKER, answers[some])
    return {stage: spent_s / PAIRS * 1e6 for stage, spent_s in stages.spent_s.items()}


def _least(*, subscriber: bool) -> dict[str, float]:
    rounds = [microseconds(subscriber=subscriber) for _ in range(ROUNDS)]
    return {stage: min(each[stage] for each in rounds) for stage in rounds[0]}


def measure() -> list[Figure]:
    plain, published = _least(subscriber=False), _least(subscriber=True)
    by_stage = ", ".join(f"{stage} {value:.1f}" for stage, value in plain.items())
    return [
        Figure(
            what="the broker's work for a pair without its sockets",
            value=sum(plain.values()),
            unit="µs",
            reference=f"{by_stage} µs; with the row for persistence "
            f"{sum(published.values()):.1f} µs",
        )
    ]
