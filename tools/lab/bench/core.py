"""The broker's processor time for one job and its result without sockets, by stage, and in a large
system."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from broker import events as e
from broker.limits import Limits
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
SMALL, LARGE = (10, 500), (10_000, 1_000_000)
"""Workers, and sessions with a job each, which wait together."""
PROMISED_SIZE_RATIO = 3.0
SLICE = 10_000
"""Messages that are made before their handling is timed."""
GATEWAY, WORKER = b"bench-gateway", b"bench-worker"
EPOCH = "epoch" * 6
RESULT = m.WorkerResult(
    broker_epoch=EPOCH,
    job_id=0,
    attempt=1,
    text="one two three",
    error=None,
    tokens=(),
    infer_ms=1,
)


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
    core: Broker, stages: Stages, side: e.Side, identity: bytes, frames: list[list[bytes]]
) -> None:
    """Decode, route and encode a batch: timing each message would cost as much as a stage."""
    with stages.timed("decoding"):
        messages = [codec.decode(each) for each in frames]
    with stages.timed("routing"):
        actions = [
            action
            for message in messages
            for action in core.handle(e.Received(side, identity, message), 1.0)
        ]
    with stages.timed("encoding"):
        for action in actions:
            if not isinstance(action, e.Count | e.Answered | e.LeaseEnded):
                codec.encode(action.message)


def _broker(limits: Limits) -> Broker:
    """A broker with one gateway."""
    core = Broker(epoch=EPOCH, limits=limits, system_id="")
    core.handle(e.Received("front", GATEWAY, m.Hello(gateway_id=GATEWAY.decode())), 0.0)
    return core


def microseconds(*, subscriber: bool) -> dict[str, float]:
    """Processor time of one pair, by stage."""
    core = _broker(BrokerSettings.model_construct().limits())
    ready = m.Ready(worker_id=WORKER.decode(), credits=2 * TOGETHER, model="", device="")
    core.handle(e.Received("back", WORKER, ready), 0.0)
    core.handle(e.SubscriptionChanged(b"", subscriber), 0.0)
    jobs = [
        codec.encode(replace(JOB, session_id=f"session-{n % SESSIONS}", seq=n // SESSIONS))
        for n in range(PAIRS)
    ]
    answers = [codec.encode(replace(RESULT, job_id=n + 1)) for n in range(PAIRS)]
    stages = Stages()
    for begin in range(0, PAIRS, TOGETHER):
        some = slice(begin, begin + TOGETHER)
        _pass_through(core, stages, "front", GATEWAY, jobs[some])
        _pass_through(core, stages, "back", WORKER, answers[some])
    return {stage: spent_s / PAIRS * 1e6 for stage, spent_s in stages.spent_s.items()}


def _least(*, subscriber: bool) -> dict[str, float]:
    rounds = [microseconds(subscriber=subscriber) for _ in range(ROUNDS)]
    return {stage: min(each[stage] for each in rounds) for stage in rounds[0]}


def waiting_us(workers: int, sessions: int, rounds: int = 1) -> float:
    """Processor time of routing one job and its result, when one job of each session waits. The
    limits of the queue are raised."""
    limits = replace(
        BrokerSettings.model_construct().limits(),
        queue_jobs_max=2 * sessions,
        queue_audio_ms_max=sessions * JOB.end_ms,
    )
    core = _broker(limits)
    for n in range(workers):
        ready = m.Ready(worker_id=f"worker-{n}", credits=1, model="", device="")
        core.handle(e.Received("back", ready.worker_id.encode(), ready), 0.0)
    spent_s, results = 0.0, 0

    def handled(events: Iterable[e.Received]) -> list[e.Send]:
        """The jobs that the events send to workers."""
        nonlocal spent_s
        made, sent = list(events), []
        began_s = time.process_time()
        for event in made:
            sent += [
                a for a in core.handle(event, 1.0) if isinstance(a, e.Send) and a.side == "back"
            ]
        spent_s += time.process_time() - began_s
        return sent

    for seq in range(rounds):
        held: list[e.Send] = []
        for begin in range(0, sessions, SLICE):
            some = range(begin, min(begin + SLICE, sessions))
            jobs = (replace(JOB, session_id=f"session-{n}", seq=seq) for n in some)
            held += handled(e.Received("front", GATEWAY, job) for job in jobs)
        while held:
            results += len(held)
            held = handled([_answer(action) for action in held])
    assert results == rounds * sessions
    return spent_s / results * 1e6


def _answer(sent: e.Send) -> e.Received:
    job = sent.message
    assert isinstance(job, m.WorkerJob)
    return e.Received(
        "back", sent.identity, replace(RESULT, job_id=job.job_id, attempt=job.attempt)
    )


def measure() -> list[Figure]:
    small_us = waiting_us(*SMALL, rounds=max(1, PAIRS // SMALL[1]))
    large_us = waiting_us(*LARGE)
    plain, published = _least(subscriber=False), _least(subscriber=True)
    by_stage = ", ".join(f"{stage} {value:.1f}" for stage, value in plain.items())
    return [
        Figure(
            what="the broker's work for a pair without its sockets",
            value=sum(plain.values()),
            unit="µs",
            reference=f"{by_stage} µs; with the row for persistence "
            f"{sum(published.values()):.1f} µs",
        ),
        Figure(
            what=f"routing a pair, {LARGE[0]:,} workers, {LARGE[1]:,} jobs waiting, over "
            f"{SMALL[0]} and {SMALL[1]}",
            value=large_us / small_us,
            unit="×",
            at_most=PROMISED_SIZE_RATIO,
            reference=f"{large_us:.1f} over {small_us:.1f} µs",
        ),
    ]
