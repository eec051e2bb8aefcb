"""Builders of messages, and a driver of the routing core."""

from __future__ import annotations

from msgspec.structs import replace

from broker import events as e
from broker.limits import Limits
from broker.routing import Broker
from broker.settings import BrokerSettings
from tests.broker.invariants import check_broker
from wire import messages as m

GATEWAY = b"gateway-1"
OTHER_GATEWAY = b"gateway-2"
WORKER = b"worker-1"
OTHER_WORKER = b"worker-2"
WELCOME = m.Welcome(broker_epoch="epoch")
DEFAULTS = BrokerSettings.model_construct().limits()
LONG_MS = 600_000
NO_ABILITIES = m.Abilities()
STREAMED_S = 0.02
NO_COST = m.Cost()


def job(
    seq: int = 0,
    *,
    session_id: str = "session",
    partial: bool = False,
    lane: m.Lane = "live",
    audio_ms: int = 1_000,
    end_ms: int | None = None,
    deadline_ms: int = LONG_MS,
    model: str = "",
) -> m.Job:
    start_ms = seq * 10_000
    return m.Job(
        session_id=session_id,
        seq=seq,
        partial=partial,
        lane=lane,
        start_ms=start_ms,
        end_ms=start_ms + audio_ms if end_ms is None else end_ms,
        last_chunk_index=seq,
        language="zh",
        hotwords=("word",),
        punctuation=False,
        itn=True,
        context="before",
        deadline_ms=deadline_ms,
        pcm=b"\0" * (32 * audio_ms),
        model=model,
    )


def result(
    of: m.Job,
    *,
    text: str | None = "text",
    error: m.Failure | None = None,
    tokens: tuple[m.Token, ...] = (),
    worker_id: str = WORKER.decode(),
    attempt: int = 1,
    queue_ms: int = 0,
    infer_ms: int = 7,
) -> m.Result:
    return of.result(
        text=text,
        error=error,
        tokens=tokens,
        worker_id=worker_id,
        attempt=attempt,
        queue_ms=queue_ms,
        infer_ms=infer_ms,
    )


def failure(of: m.Job, error: m.Failure, *, attempt: int) -> m.Result:
    return result(of, text=None, error=error, worker_id="", attempt=attempt, infer_ms=0)


def worker_job(of: m.Job, job_id: int, *, attempt: int = 1) -> m.WorkerJob:
    return m.WorkerJob(
        broker_epoch="epoch",
        job_id=job_id,
        attempt=attempt,
        partial=of.partial,
        language=of.language,
        hotwords=of.hotwords,
        pcm=of.pcm,
        session_id=of.session_id,
        seq=of.seq,
        punctuation=of.punctuation,
        itn=of.itn,
        context=of.context,
    )


def published(answer: m.Result, gateway: bytes = GATEWAY) -> e.Publish:
    return e.Publish(
        m.PublishedResult(broker_epoch="epoch", gateway_id=gateway.decode(), result=answer)
    )


class Driver:
    """A broker with a subscriber, and its clock. Validates the core after each event."""

    def __init__(
        self, limits: Limits | None = None, *, subscriber: bool = True, system_id: str = ""
    ) -> None:
        self.now_s = 100.0
        self.answered: list[e.Answered] = []
        self.ended: list[e.LeaseEnded] = []
        self.broker = Broker(epoch="epoch", limits=limits or DEFAULTS, system_id=system_id)
        self.handle(e.Tick())
        if subscriber:
            assert self.handle(e.SubscriptionChanged(b"", True)) == []

    def handle(self, event: e.Event) -> list[e.Action]:
        """The actions without ``Answered`` and ``LeaseEnded``, which are collected in ``answered``
        and ``ended``."""
        actions = self.broker.handle(event, self.now_s)
        check_broker(self.broker)
        self.answered += [action for action in actions if isinstance(action, e.Answered)]
        self.ended += [action for action in actions if isinstance(action, e.LeaseEnded)]
        reported = (e.Answered, e.LeaseEnded)
        return [action for action in actions if not isinstance(action, reported)]

    def front(self, message: m.Message, identity: bytes = GATEWAY) -> list[e.Action]:
        return self.handle(e.Received("front", identity, message))

    def back(self, message: m.Message, identity: bytes = WORKER) -> list[e.Action]:
        return self.handle(e.Received("back", identity, message))

    def hello(self, identity: bytes = GATEWAY) -> None:
        actions = self.front(m.Hello(gateway_id=identity.decode()), identity)
        assert actions == [e.Send("front", identity, self.answer_to_hello)]

    @property
    def answer_to_hello(self) -> m.Welcome:
        return replace(WELCOME, received_ms=round(self.now_s * 1000))

    def ready(
        self,
        identity: bytes = WORKER,
        *,
        credits: int = 4,
        streamed_credits: int = 0,
        served_name: str = "",
        abilities: m.Abilities = NO_ABILITIES,
        cost: m.Cost = NO_COST,
        answers_marks: bool = False,
    ) -> list[e.Action]:
        """Register a worker. Returns the actions besides the Welcome."""
        worker_id = identity.decode()
        ready = m.Ready(
            worker_id=worker_id,
            credits=credits,
            streamed_credits=streamed_credits,
            streamed_s=STREAMED_S if streamed_credits else 0.0,
            model="demo",
            device="cpu",
            served_name=served_name,
            abilities=abilities,
            cost=cost,
            answers_marks=answers_marks,
        )
        actions = self.back(ready, identity)
        assert e.Send("back", identity, WELCOME) in actions
        return [action for action in actions if action != e.Send("back", identity, WELCOME)]

    def beat(self, identity: bytes = WORKER, *, busy_ms: int = 0) -> list[e.Action]:
        return self.back(m.Heartbeat(worker_id=identity.decode(), busy_ms=busy_ms), identity)

    def answer(
        self,
        job_id: int,
        identity: bytes = WORKER,
        *,
        attempt: int = 1,
        text: str | None = "text",
        error: m.Failure | None = None,
        tokens: tuple[m.Token, ...] = (),
        broker_epoch: str = "epoch",
        embedding: bytes = b"",
        held_ms: int | None = None,
    ) -> list[e.Action]:
        answer = m.WorkerResult(
            broker_epoch=broker_epoch,
            job_id=job_id,
            attempt=attempt,
            text=text,
            error=error,
            tokens=tokens,
            infer_ms=7,
            embedding=embedding,
            held_ms=held_ms,
        )
        return self.back(answer, identity)

    def bye(
        self, *returned: tuple[int, int], identity: bytes = WORKER, broker_epoch: str = "epoch"
    ) -> list[e.Action]:
        jobs = tuple(m.JobAttempt(job_id=job_id, attempt=attempt) for job_id, attempt in returned)
        bye = m.Bye(worker_id=identity.decode(), broker_epoch=broker_epoch, returned=jobs)
        return self.back(bye, identity)

    def tick(self, after_s: float = 0.0, *, alive: tuple[bytes, ...] = ()) -> list[e.Action]:
        """Advance the clock in steps, with heartbeats or hellos of ``alive``. Returns the actions
        besides Welcome and Load."""
        actions: list[e.Action] = []
        end_s = self.now_s + after_s
        while True:
            for identity in alive:
                if identity.startswith(b"gateway"):
                    actions += self.front(m.Hello(gateway_id=identity.decode()), identity)
                else:
                    actions += self.beat(identity, busy_ms=int(after_s * 1000))
            actions += self.handle(e.Tick())
            if self.now_s >= end_s:
                break
            self.now_s = min(end_s, self.now_s + 0.5)
        return [action for action in actions if not _is_routine(action)]


def _is_routine(action: e.Action) -> bool:
    return (
        isinstance(action, e.Send)
        and action.side == "front"
        and isinstance(action.message, m.Welcome | m.Load)
    )
