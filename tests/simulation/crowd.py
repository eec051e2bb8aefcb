"""A crowd of clients, with the real cores of admission and broker.

Workers recognise batches at a fixed speed. Clients speak without end, and retry after the time that
a refusal names. A minute of 1,500 clients takes a second.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from asr_worker.recognizer.trial import TRIAL_S
from broker import events as e
from broker.routing import Broker
from broker.settings import BrokerSettings
from gateway.admission.policy import Admission, AdmissionLimits
from gateway.broker_client import HELLO_EVERY_S
from wire import messages as m

TICK_S = 0.05
BATCH_S = 0.01
"""Fixed cost of a batch."""
BATCH_JOBS_MAX = 32
PAUSE_S = 0.6
"""Pause of a speaker between two utterances."""
_SILENCE = bytes(32 * 6_000)


@dataclass(slots=True)
class _Worker:
    identity: bytes
    jobs: list[m.WorkerJob] = field(default_factory=list)
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """The wait that the broker estimated for a job, and the wait that it had."""

    at_s: float
    estimated_s: float
    waited_s: float


class Crowd:
    """Call ``offer``, then ``run``."""

    def __init__(
        self, *, seed: int, limits: AdmissionLimits, gateways: int, workers: int, worker_rtfx: float
    ) -> None:
        self.now_s = 0.0
        self.answers: list[Wait] = []
        self.present = 0
        self.admitted_s: list[float] = []
        self.refused = 0
        self.worker_rtfx = worker_rtfx
        self._rng = random.Random(seed)
        self._broker = Broker(epoch="epoch", limits=BrokerSettings.model_construct().limits())
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._asked: dict[tuple[str, int], tuple[float, float]] = {}
        self._gateways = {f"gateway-{n}".encode(): Admission(limits) for n in range(gateways)}
        self._own = dict.fromkeys(self._gateways, 0)
        self._workers = {
            identity: _Worker(identity)
            for identity in (f"worker-{n}".encode() for n in range(workers))
        }
        for identity in self._gateways:
            self._greet(identity)
        for identity in self._workers:
            # As a worker measures itself: with one utterance.
            alone_rtfx = TRIAL_S / (BATCH_S + TRIAL_S / worker_rtfx)
            ready = m.Ready(
                worker_id=identity.decode(),
                credits=64,
                model="m",
                device="d",
                throughput_rtfx=alone_rtfx,
            )
            self._tell(e.BackReceived(identity, ready))
        self._tick()

    # ---------------------------------------------------------------------------------- the course

    def at(self, when_s: float, do: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when_s, self._count, do))

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, do = heapq.heappop(self._events)
            do()
        self.now_s = until_s

    def offer(self, clients: int, *, speak_s: float, at_s: float, give_up_s: float) -> None:
        """Add clients that connect at ``at_s``. A refused one retries until ``give_up_s``."""
        for _ in range(clients):
            gateway = self._rng.choice(list(self._gateways))
            self.at(at_s, partial(self._knock, gateway, speak_s, give_up_s))

    # ----------------------------------------------------------------------------------- its people

    def _knock(self, gateway: bytes, speak_s: float, give_up_s: float) -> None:
        own = self._own[gateway] + 1
        refusal = self._gateways[gateway].decide(
            self.now_s, own=own, backlog_full=False, draining=False, model="m"
        )
        if refusal is None:
            self._gateways[gateway].note_admitted(self.now_s, "m")
            self._own[gateway] += 1
            self.present += 1
            self.admitted_s.append(self.now_s)
            name = f"session-{len(self.admitted_s)}"
            self._begin(gateway, name, 0, self.now_s + speak_s)
            return
        self.refused += 1
        again_s = self.now_s + refusal.retry_after_s * self._rng.uniform(1, 2)
        if again_s < give_up_s:
            self.at(again_s, lambda: self._knock(gateway, speak_s, give_up_s))

    def _begin(self, gateway: bytes, session: str, seq: int, end_s: float) -> None:
        audio_ms = 1_000 * self._rng.randint(2, 6)
        said_s = self.now_s + audio_ms / 1000 + PAUSE_S
        if said_s > end_s:
            self._own[gateway] -= 1
            self.present -= 1
            return
        self.at(said_s, lambda: self._say(gateway, session, seq, end_s, audio_ms))

    def _say(self, gateway: bytes, session: str, seq: int, end_s: float, audio_ms: int) -> None:
        job = m.Job(
            session_id=session,
            seq=seq,
            partial=False,
            lane="live",
            start_ms=0,
            end_ms=audio_ms,
            last_chunk_index=0,
            language="",
            hotwords=(),
            deadline_ms=60_000,
            pcm=_SILENCE[: 32 * audio_ms],
        )
        # The estimate before the broker receives this job.
        self._asked[session, seq] = (self.now_s, self._broker.load().est_wait_ms / 1000)
        self._tell(e.FrontReceived(gateway, job))
        self._begin(gateway, session, seq + 1, end_s)

    # ------------------------------------------------------------------------------------- the bus

    def _tick(self) -> None:
        for identity in self._workers:
            beat = m.Heartbeat(worker_id=identity.decode(), busy_ms=0)
            self._tell(e.BackReceived(identity, beat))
        self._tell(e.Tick())
        self.at(self.now_s + TICK_S, self._tick)

    def _greet(self, identity: bytes) -> None:
        expected = self._gateways[identity].next_expected_audio_rates(
            self.now_s, own=self._own[identity]
        )
        hello = m.Hello(gateway_id=identity.decode(), expected=expected)
        self._tell(e.FrontReceived(identity, hello))
        self.at(self.now_s + HELLO_EVERY_S, lambda: self._greet(identity))

    def _tell(self, event: e.Event) -> None:
        for action in self._broker.handle(event, self.now_s):
            if isinstance(action, e.SendBack) and isinstance(action.message, m.WorkerJob):
                worker = self._workers[action.identity]
                worker.jobs.append(action.message)
                self._start(worker)
            elif isinstance(action, e.SendFront) and isinstance(action.message, m.Load):
                self._gateways[action.identity].note_load(action.message, self.now_s)
            elif isinstance(action, e.SendFront) and isinstance(action.message, m.Result):
                result = action.message
                asked_s, estimated_s = self._asked.pop((result.session_id, result.seq))
                self.answers.append(Wait(asked_s, estimated_s, self.now_s - asked_s))

    def _start(self, worker: _Worker) -> None:
        if worker.busy or not worker.jobs:
            return
        batch, worker.jobs = worker.jobs[:BATCH_JOBS_MAX], worker.jobs[BATCH_JOBS_MAX:]
        worker.busy = True
        audio_s = sum(m.pcm_duration_ms(job.pcm) for job in batch) / 1000
        took_s = BATCH_S + audio_s / self.worker_rtfx
        infer_ms = round(took_s * 1000)
        self.at(self.now_s + took_s, lambda: self._finish(worker, batch, infer_ms))

    def _finish(self, worker: _Worker, batch: list[m.WorkerJob], infer_ms: int) -> None:
        worker.busy = False
        self._start(worker)
        for job in batch:
            answer = m.WorkerResult(
                broker_epoch=job.broker_epoch,
                job_id=job.job_id,
                attempt=job.attempt,
                text="text",
                error=None,
                tokens=(),
                infer_ms=infer_ms,
            )
            self._tell(e.BackReceived(worker.identity, answer))
