"""A crowd of clients, with the real cores of admission, broker and the workers' batches.

Batches take the time that the workers' cost tells. Clients speak without end, and retry after the
time that a refusal names. A minute of 1,500 clients takes a second.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from msgspec import structs

from asr_worker.batching import BatchLimits, BatchQueue
from asr_worker.job_book import CREDITS_PER_BATCH_JOB
from broker import events as e
from broker.routing import Broker
from broker.settings import BrokerSettings
from gateway.admission.policy import Admission, AdmissionLimits
from gateway.admission.retries import Retries
from gateway.brokers.client import HELLO_EVERY_S
from gateway.session.session_jobs import PartialPacing
from wire import messages as m

TICK_S = 0.05
CHUNK_MS = 100
PARTIAL_EVERY_MS = 600
BATCH_AUDIO_MS_MAX = 64_000
BULK_UNANSWERED_MAX = 12
"""Utterances of a file that await results."""
PAUSE_S = 0.6
"""Pause of a speaker between two utterances."""
_SILENCE = bytes(32 * 6_000)


@dataclass(slots=True)
class _Worker:
    identity: bytes
    queue: BatchQueue[int]
    jobs: dict[int, m.WorkerJob] = field(default_factory=dict)
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
        self,
        *,
        seed: int,
        limits: AdmissionLimits,
        gateways: int,
        workers: int,
        cost: m.Cost,
        batch_jobs: int,
        slowness: float = 1.0,
        partials: bool = False,
    ) -> None:
        """``slowness``: batches take this multiple of ``cost``, which the workers report."""
        self.now_s = 0.0
        self.answers: list[Wait] = []
        self.present = 0
        self.admitted_s: list[float] = []
        self.refused_s: list[float] = []
        self.first_partials_s: list[float] = []
        """From the beginning of each session's first utterance to its first partial result."""
        self.file_utterances = 0
        """Answered, of all files."""
        self._cost = cost
        self._slowness = slowness
        self._wants_partials = partials
        self._pacing: dict[str, PartialPacing] = {}
        self._spoken: dict[str, tuple[int, float]] = {}
        """By session: the first utterance, and when it began, until its first partial result."""
        self._rng = random.Random(seed)
        self._broker = Broker(
            epoch="epoch", limits=BrokerSettings.model_construct().limits(), system_id=""
        )
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._asked: dict[tuple[str, int], tuple[float, float]] = {}
        self._files: dict[tuple[str, int], Callable[[], None]] = {}
        """By utterance of a file, what follows its answer."""
        self._gateways = {f"gateway-{n}".encode(): Admission(limits) for n in range(gateways)}
        self._retries = {identity: Retries() for identity in self._gateways}
        self._own = dict.fromkeys(self._gateways, 0)
        batches = BatchLimits(jobs_max=batch_jobs, audio_ms_max=BATCH_AUDIO_MS_MAX, cost=cost)
        self._workers = {
            identity: _Worker(identity, BatchQueue(batches))
            for identity in (f"worker-{n}".encode() for n in range(workers))
        }
        for identity in self._gateways:
            self._greet(identity)
        for identity in self._workers:
            ready = m.Ready(
                worker_id=identity.decode(),
                credits=CREDITS_PER_BATCH_JOB * batch_jobs,
                model="m",
                device="d",
                cost=cost,
                abilities=m.Abilities(batch_jobs=batches.usual_jobs),
            )
            self._tell(e.Received("back", identity, ready))
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
            self.now_s,
            own=own,
            total=sum(self._own.values()) + 1,
            backlog_full=False,
            draining=False,
            model="m",
        )
        if refusal is None:
            self._gateways[gateway].note_admitted(self.now_s, "m")
            self._own[gateway] += 1
            self.present += 1
            self.admitted_s.append(self.now_s)
            name = f"session-{len(self.admitted_s)}"
            self._begin(gateway, name, 0, self.now_s + speak_s)
            return
        self.refused_s.append(self.now_s)
        refusal = self._retries[gateway].spread(refusal, self.now_s)
        again_s = self.now_s + refusal.retry_after_s * self._rng.uniform(1, 2)
        if again_s < give_up_s:
            self.at(again_s, lambda: self._knock(gateway, speak_s, give_up_s))

    def _begin(self, gateway: bytes, session: str, seq: int, end_s: float) -> None:
        audio_ms = self._rng.randint(2_000, 6_000)
        said_s = self.now_s + audio_ms / 1000 + PAUSE_S
        if said_s > end_s:
            self._own[gateway] -= 1
            self.present -= 1
            return
        self.at(said_s, lambda: self._say(gateway, session, seq, end_s, audio_ms))
        if self._wants_partials:
            if seq == 0:
                self._spoken[session] = (seq, self.now_s)
            for spoken_ms in range(CHUNK_MS, audio_ms + 1, CHUNK_MS):
                more = partial(self._say_more, gateway, session, seq, self.now_s, spoken_ms)
                self.at(self.now_s + spoken_ms / 1000, more)

    def _say(self, gateway: bytes, session: str, seq: int, end_s: float, audio_ms: int) -> None:
        start_ms = round(1000 * (self.now_s - PAUSE_S)) - audio_ms
        job = _job(session, seq, start_ms, audio_ms)
        # The estimate before the broker receives this job.
        self._asked[session, seq] = (self.now_s, self._broker.load().est_wait_ms / 1000)
        if self._wants_partials:
            self._pacing_of(session).segment_ended(job.end_ms)
        self._tell(e.Received("front", gateway, job))
        self._begin(gateway, session, seq + 1, end_s)

    def _say_more(
        self, gateway: bytes, session: str, seq: int, began_s: float, spoken_ms: int
    ) -> None:
        start_ms = round(1000 * began_s)
        if self._pacing_of(session).submit(start_ms, start_ms + spoken_ms, self.now_s):
            job = structs.replace(_job(session, seq, start_ms, spoken_ms), partial=True)
            self._tell(e.Received("front", gateway, job))

    def _pacing_of(self, session: str) -> PartialPacing:
        return self._pacing.setdefault(session, PartialPacing(PARTIAL_EVERY_MS))

    def transcribe(self, name: str, utterances: int, audio_ms: int) -> None:
        """Upload a file now. It counts as a connection to the end."""
        gateway = next(iter(self._gateways))
        self._own[gateway] += 1
        for seq in range(min(utterances, BULK_UNANSWERED_MAX)):
            self._send_file(gateway, name, seq, utterances, audio_ms)

    def _send_file(
        self, gateway: bytes, name: str, seq: int, utterances: int, audio_ms: int
    ) -> None:
        if seq < utterances:
            job = structs.replace(_job(name, seq, seq * audio_ms, audio_ms), lane="bulk")
            self._files[name, seq] = partial(
                self._send_file, gateway, name, seq + BULK_UNANSWERED_MAX, utterances, audio_ms
            )
            self._tell(e.Received("front", gateway, job))

    # ------------------------------------------------------------------------------------- the bus

    def _tick(self) -> None:
        for identity in self._workers:
            beat = m.Heartbeat(worker_id=identity.decode(), busy_ms=0)
            self._tell(e.Received("back", identity, beat))
        self._tell(e.Tick())
        self.at(self.now_s + TICK_S, self._tick)

    def _greet(self, identity: bytes) -> None:
        expected = self._gateways[identity].next_expected_audio_rates(
            self.now_s, own=self._own[identity]
        )
        hello = m.Hello(gateway_id=identity.decode(), expected=expected)
        self._tell(e.Received("front", identity, hello))
        self.at(self.now_s + HELLO_EVERY_S, lambda: self._greet(identity))

    def _tell(self, event: e.Event) -> None:
        for action in self._broker.handle(event, self.now_s):
            if (
                isinstance(action, e.Send)
                and action.side == "back"
                and isinstance(action.message, m.WorkerJob)
            ):
                worker, job = self._workers[action.identity], action.message
                worker.jobs[job.job_id] = job
                audio_ms = m.pcm_duration_ms(job.pcm)
                worker.queue.add(job.job_id, audio_ms=audio_ms, partial=job.partial)
                # After what else arrives at this time.
                self.at(self.now_s, partial(self._start, worker))
            elif (
                isinstance(action, e.Send)
                and action.side == "front"
                and isinstance(action.message, m.Load)
            ):
                self._gateways[action.identity].note_load(action.message, self.now_s)
            elif (
                isinstance(action, e.Send)
                and action.side == "front"
                and isinstance(action.message, m.Result)
            ):
                self._take(action.message)

    def _take(self, result: m.Result) -> None:
        place = result.session_id, result.seq
        if result.partial:
            self._pacing_of(result.session_id).answered(result.end_ms, self.now_s)
            seq, began_s = self._spoken.get(result.session_id, (-1, 0.0))
            if seq == result.seq:
                del self._spoken[result.session_id]
                self.first_partials_s.append(self.now_s - began_s)
        elif place in self._files:
            self.file_utterances += 1
            self._files.pop(place)()
        else:
            asked_s, estimated_s = self._asked.pop(place)
            self.answers.append(Wait(asked_s, estimated_s, self.now_s - asked_s))

    @property
    def unanswered(self) -> int:
        """Utterances of live sessions that have no result."""
        return len(self._asked)

    @property
    def without_partial(self) -> int:
        """Sessions that have had no partial result of their first utterance."""
        return len(self._spoken)

    def _start(self, worker: _Worker) -> None:
        if worker.busy or not len(worker.queue):
            return
        batch = [worker.jobs.pop(job_id) for job_id in worker.queue.take_batch()]
        worker.busy = True
        longest_ms = max(m.pcm_duration_ms(job.pcm) for job in batch)
        took_s = self._slowness * self._cost.expected_s(len(batch), longest_ms * len(batch))
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
                batch_jobs=len(batch),
            )
            self._tell(e.Received("back", worker.identity, answer))


def _job(session: str, seq: int, start_ms: int, audio_ms: int) -> m.Job:
    return m.Job(
        session_id=session,
        seq=seq,
        partial=False,
        lane="live",
        start_ms=start_ms,
        end_ms=start_ms + audio_ms,
        last_chunk_index=0,
        language="",
        hotwords=(),
        deadline_ms=600_000,
        pcm=_SILENCE[: 32 * audio_ms],
    )
