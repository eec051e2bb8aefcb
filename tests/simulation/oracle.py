"""The invariants, and the checks of the broker after each event.

The oracle believes only what passes the broker's boundary. Each failure names its invariant:

1. each segment has at most one row, with the right text (``sessions``, ``job_gateways``)
2. a client receives its own segments, once, in order and without gaps (``clients``)
3. what is reported as stored is committed (``sessions``, ``persistence_process``)
4. a result counts only from the worker of the newest attempt, in this epoch, and once
5. a worker holds no more jobs than credits, and discards none, and no job is both queued and
   assigned
6. an accepted unanswered job is in exactly one place, is dropped only with a counter, and no
   process fails
7. jobs are assigned only to registered workers with a lease that do not hang and serve the job's
   model
8. a job has at most 3 attempts, then one terminal error
9. each queue is within its limit, a refused job leaves nothing behind, and jobs of one model take
   no room from those of another
10. no waiting session is passed over for long
11. pending work has an event or timer that moves it, and is sent again to a broker of a new epoch,
    and to persistence when it is back (``sessions``)
12. after the heal everything ends, and nothing is left (``schedule``)
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from broker import events as e
from broker.limits import ATTEMPTS_MAX, BULK_EVERY_ASSIGNMENTS
from broker.queues import JobQueue
from broker.routing import Broker
from tests.broker.invariants import check_broker
from tests.simulation.options import ATTEMPT_DEADLINE_S, LEASE_S, Options
from tests.simulation.speech import is_poison, text_of, without_accent
from wire import messages as m

Key = tuple[str, int]
TICK_S = 0.1


class InvariantError(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: int, what: str) -> None:
        super().__init__(f"invariant {invariant}: {what}")
        self.invariant = invariant


@dataclass(slots=True)
class _Assigned:
    key: Key
    partial: bool
    pcm: bytes
    worker: bytes | None
    """None: the worker has returned the job or registered again."""
    attempt: int
    begun: int = 1
    """Attempts sent, without those returned or refused by the socket."""
    workers: list[bytes] = field(default_factory=list)
    """The workers that began it and have not registered again."""
    excused: int = 0
    """Attempts of workers that have registered again. They do not count: the job cannot have ended
    these workers."""


@dataclass(slots=True)
class Seen:
    """Texts that passed the broker's oracle, and that clients may therefore receive."""

    failed: set[Key] = field(default_factory=set)
    """Segments that ended with ``chunk_failed``."""
    partials: set[tuple[str, str]] = field(default_factory=set)
    """Session and text of each partial job assigned to a worker."""


class BrokerOracle:
    """Observes one broker process; ``seen`` is shared with its successors."""

    def __init__(self, core: Broker, options: Options, seen: Seen) -> None:
        self.core = core
        self._options = options
        self._seen = seen
        self._open: dict[Key, bytes] = {}
        self._pcm: dict[Key, bytes] = {}
        self._generations: dict[Key, int] = {}
        self._assigned: dict[int, _Assigned] = {}
        self._renewed_s: dict[bytes, float] = {}
        self._credits: dict[bytes, tuple[int, int]] = {}
        """By worker: those for all jobs, or with a streaming model for final ones, and those for
        its partial ones."""
        self._serves: dict[bytes, str] = {}
        self._models: dict[str, str] = {}
        """By session: the model that its jobs ask for."""
        self._sent_s: dict[bytes, dict[tuple[int, int], float]] = {}
        """By worker: unanswered attempts, and when they were sent."""
        self._overdue_s: dict[bytes, dict[tuple[int, int], float]] = {}
        """By worker: attempts past their deadline at a tick, and the time of that tick. A stopped
        broker has no ticks and sees no deadline pass."""
        self._waits: dict[tuple[str, str, str], tuple[int, int]] = {}
        self.counts: Counter[str] = Counter()

    def observe(self, event: e.Event, actions: list[e.Action], now_s: float) -> None:
        """Call after each event. Raises InvariantError."""
        self._take_event(event, actions, now_s)
        drops = 0
        answered: Counter[tuple[Key, type]] = Counter()
        for action in actions:
            match action:
                case e.Count(reason):
                    self.counts[reason] += 1
                    drops += reason in ("gateway_lost", "superseded_generation")
                case e.Send("back", identity, m.WorkerJob() as job):
                    self._check_assignment(identity, job, now_s)
                case e.Send("front", identity, m.Result() as result) if not result.partial:
                    if result.error is None or result.error.code != "overloaded":
                        self._check_answer(result, event)
                        answered[(result.session_id, result.seq), e.Send] += 1
                        self._check_receiver(identity, result)
                case e.Send("front", _, m.Result() as result):
                    self._check_partial(result, event)
                case e.Publish(m.PublishedResult(result=result)):
                    self._check_published(result)
                    self._check_answer(result, event)
                    answered[(result.session_id, result.seq), e.Publish] += 1
        if any(count > 1 for count in answered.values()):
            raise InvariantError(4, f"answered twice: {answered}")
        if isinstance(event, e.Tick) and not any(map(_changes, actions)):
            return  # Half of all events. The checks below take longer than such an event.
        self._close(event, actions, {key for key, _ in answered}, drops)
        self._check_queues()
        try:
            check_broker(self.core)
        except AssertionError as error:
            raise InvariantError(_invariant_of(error), f"broker: {error!r}") from error

    # ------------------------------------------------------------------------------------ records

    def _take_event(self, event: e.Event, actions: list[e.Action], now_s: float) -> None:
        match event:
            case e.Tick():
                self._note_overdue(now_s)
            case e.Received("front", identity, m.Job() as job):
                key = (job.session_id, job.seq)
                if self._models.setdefault(job.session_id, job.model) != job.model:
                    raise InvariantError(7, f"{job.session_id} changes to model {job.model!r}")
                if _refused(job, actions):
                    self._check_refusal(job)
                older = key in self._open and job.generation < self._generations[key]
                if not job.partial and not older and not _refused(job, actions):
                    self._open[key] = identity
                    self._pcm[key] = job.pcm
                    self._generations[key] = job.generation
            case e.Received("front", _, m.Cancel(session_id=session_id)):
                for key in [key for key in self._open if key[0] == session_id]:
                    del self._open[key]
            case e.Received("back", identity, m.Ready() as ready) if (
                ready.broker_epoch == self.core.epoch and e.Count("worker_reconnected") in actions
            ):
                self._renewed_s[identity] = now_s
                held = {(job.job_id, job.attempt) for job in ready.held}
                for attempt in [a for a in self._sent_s[identity] if a not in held]:
                    self._give_back(identity, *attempt, keeps_number=False)
            case e.Received("back", identity, m.Ready() as ready):
                self._renewed_s[identity] = now_s
                self._credits[identity] = ready.credits, ready.streamed_credits
                self._serves[identity] = ready.served_name
                self._sent_s[identity], self._overdue_s[identity] = {}, {}
                self._void(identity)
                for assigned in self._assigned.values():
                    assigned.excused += assigned.workers.count(identity)
                    assigned.workers = [each for each in assigned.workers if each != identity]
            case e.Received("back", identity, m.Bye() as bye):
                self._renewed_s.pop(identity, None)
                # After the end of its lease all its attempts are lost, begun or not.
                known = e.Count("unknown_worker") not in actions
                for returned in bye.returned if known else ():
                    self._give_back(identity, returned.job_id, returned.attempt)
            case e.Received("back", _, m.MarkArrived()):
                pass
            case e.Received("back", identity, message) if identity in self._renewed_s:
                self._renewed_s[identity] = now_s
                self._take_from_worker(identity, message, now_s)
            case e.Unsent(e.Send("back", identity, m.WorkerJob() as unsent)):
                self._give_back(identity, unsent.job_id, unsent.attempt)
                self._renewed_s.pop(identity, None)
                self._void(identity)

    def _take_from_worker(self, identity: bytes, message: m.Message, now_s: float) -> None:
        if isinstance(message, m.WorkerResult) and message.broker_epoch == self.core.epoch:
            self._forget(identity, (message.job_id, message.attempt))
        elif isinstance(message, m.Heartbeat):
            if message.credits:
                # Several brokers share a worker. It may hold more, assigned before.
                self._credits[identity] = message.credits, message.streamed_credits
            # Its batch began after their deadline: the jobs were lost on the way to it.
            began_s = now_s - message.busy_ms / 1000
            overdue_s = self._overdue_s[identity]
            for attempt in [a for a, since_s in overdue_s.items() if since_s < began_s]:
                self._forget(identity, attempt)

    def _note_overdue(self, now_s: float) -> None:
        for identity, sent_s in self._sent_s.items():
            for attempt, when_s in sent_s.items():
                if now_s - when_s > ATTEMPT_DEADLINE_S:
                    self._overdue_s[identity].setdefault(attempt, now_s)

    def _forget(self, identity: bytes, attempt: tuple[int, int]) -> bool:
        """The worker no longer runs the attempt. Returns whether it was in time until now."""
        self._sent_s.get(identity, {}).pop(attempt, None)
        return self._overdue_s.get(identity, {}).pop(attempt, None) is None

    def _give_back(
        self, identity: bytes, job_id: int, attempt: int, *, keeps_number: bool = True
    ) -> None:
        """The worker returned the attempt, or it was lost in transit, and the next one has another
        number. After its deadline it counts as an attempt."""
        in_time = self._forget(identity, (job_id, attempt))
        assigned = self._assigned.get(job_id)
        if assigned is not None and (assigned.worker, assigned.attempt) == (identity, attempt):
            assigned.worker = None
            if in_time:
                assigned.begun -= keeps_number
                assigned.excused += not keeps_number
                assigned.workers.remove(identity)

    def _void(self, identity: bytes) -> None:
        for assigned in self._assigned.values():
            if assigned.worker == identity:
                assigned.worker = None

    def excuse(self, now_s: float) -> None:
        """The broker was stopped until now: it extends all leases."""
        self._renewed_s = dict.fromkeys(self._renewed_s, now_s)

    # ------------------------------------------------------------------------------------- checks

    def _check_assignment(self, identity: bytes, job: m.WorkerJob, now_s: float) -> None:
        renewed_s = self._renewed_s.get(identity)
        if renewed_s is None:
            raise InvariantError(7, f"job for {identity!r}, which is not there")
        if now_s - renewed_s > LEASE_S + 2 * TICK_S:
            raise InvariantError(7, f"job for {identity!r}, silent for {now_s - renewed_s:.2f} s")
        if self._models[job.session_id] not in ("", self._serves[identity]):
            raise InvariantError(7, f"job for {identity!r}, which serves another model")
        sent_s = self._sent_s[identity]
        if self._overdue_s[identity]:
            raise InvariantError(7, f"job for {identity!r}, which may hang")
        sent_s[job.job_id, job.attempt] = now_s
        key = (job.session_id, job.seq)
        known = self._assigned.get(job.job_id)
        if known is None:
            known = _Assigned(key, job.partial, job.pcm, identity, job.attempt)
            if job.partial:
                self._seen.partials.add((job.session_id, text_of(job.pcm)))
            self._assigned[job.job_id] = known
        else:
            known.begun += 1
            known.worker, known.attempt = identity, job.attempt
        known.workers.append(identity)
        self._check_credits(identity, job)
        most = ATTEMPTS_MAX + known.excused
        if known.begun > most or not 1 <= job.attempt <= most:
            raise InvariantError(8, f"attempt {job.attempt}, begun {known.begun} times")
        if known.key != key:
            raise InvariantError(6, f"job {job.job_id} is {known.key} and {key}")
        self._check_fair(job.session_id, job, self._serves[identity])

    def _check_credits(self, identity: bytes, job: m.WorkerJob) -> None:
        credits, streamed_credits = self._credits[identity]
        partial = [self._assigned[job_id].partial for job_id, _ in self._sent_s[identity]]
        streamed = sum(partial) if streamed_credits else 0
        is_streamed = job.partial and streamed_credits > 0
        held, most = (
            (streamed, streamed_credits) if is_streamed else (len(partial) - streamed, credits)
        )
        if held > most:
            raise InvariantError(5, f"{identity!r} has {held} jobs, {most} credits")

    def _check_fair(self, session_id: str, job: m.WorkerJob, model: str) -> None:
        """Count the assignments of new jobs to other sessions while a session waits in its lane.
        Fairness by audio allows each other session ``cost_ratio_max`` + 1 of them."""
        if job.attempt > 1 or job.partial:
            return
        queue = self.core.scheduler.models[model].queue
        lanes: dict[str, set[str]] = {"live": set(), "bulk": set()}
        for entry in queue:
            if entry.location in lanes:
                lanes[entry.location].add(entry.job.session_id)
        waits = {key: waited for key, waited in self._waits.items() if key[0] != model}
        for lane, names in lanes.items():
            for name in names:
                turns, most = self._waits.get((model, name, lane), (0, 0))
                most = max(most, len(names | {session_id}))
                turns = 0 if name == session_id else turns + 1
                waits[model, name, lane] = (turns, most)
                own_lane = (most - 1) * (self._options.cost_ratio_max + 1) + 1
                every = BULK_EVERY_ASSIGNMENTS if lane == "bulk" else 2
                if turns > own_lane * every:
                    raise InvariantError(10, f"{name} ({lane}) was passed over {turns} times")
        self._waits = waits

    def _check_answer(self, result: m.Result, event: e.Event) -> None:
        key = (result.session_id, result.seq)
        if key not in self._open:
            raise InvariantError(4, f"answer to {key}, which has no open job")
        if result.error is not None:
            if result.error.code == "chunk_failed":
                begun = [a.begun - a.excused for a in self._assigned.values() if a.key == key]
                if result.attempt < ATTEMPTS_MAX or ATTEMPTS_MAX not in begun:
                    raise InvariantError(8, f"{key} failed after attempts {begun}")
                if self._options.only_poison and not is_poison(self._pcm[key]):
                    raise InvariantError(8, f"{key} failed for the sake of another")
            else:
                raise InvariantError(8, f"{key} failed with {result.error}")
            self._seen.failed.add(key)
            return
        if not (isinstance(event, e.Received) and event.side == "back") or not isinstance(
            event.message, m.WorkerResult
        ):
            raise InvariantError(4, f"a text for {key} out of nowhere")
        answer, assigned = event.message, self._assigned.get(event.message.job_id)
        if answer.broker_epoch != self.core.epoch:
            raise InvariantError(4, f"a text for {key} from epoch {answer.broker_epoch}")
        if assigned is None or assigned.key != key or assigned.partial:
            raise InvariantError(4, f"a text for {key} from a result for {assigned}")
        if (assigned.worker, assigned.attempt) != (event.identity, answer.attempt):
            raise InvariantError(4, f"a text for {key} by {event.identity!r}, assigned {assigned}")
        if without_accent(result.text or "") != text_of(self._pcm[key]):
            raise InvariantError(4, f"the text for {key} is that of other audio")

    def _check_partial(self, result: m.Result, event: e.Event) -> None:
        if not (isinstance(event, e.Received) and event.side == "back") or not isinstance(
            event.message, m.WorkerResult
        ):
            raise InvariantError(4, f"{result} out of nowhere")
        assigned = self._assigned.get(event.message.job_id)
        key = (result.session_id, result.seq)
        if assigned is None or not assigned.partial or assigned.key != key:
            raise InvariantError(4, f"{result} from a result for {assigned}")
        if without_accent(result.text or "") != text_of(assigned.pcm):
            raise InvariantError(4, f"{result} is that of other audio")

    def _check_receiver(self, identity: bytes, result: m.Result) -> None:
        newest = self._open[result.session_id, result.seq]
        if identity != newest:
            raise InvariantError(6, f"{result} for {identity!r}, though {newest!r} asked last")

    def _check_published(self, result: m.Result) -> None:
        if result.partial or (result.error is not None and result.error.code == "overloaded"):
            raise InvariantError(4, f"published: {result}")

    def _close(
        self, event: e.Event, actions: list[e.Action], answered: set[Key], drops: int
    ) -> None:
        """Compare the jobs that must be unanswered with those that the core keeps."""
        for key in answered:
            del self._open[key]
        kept = {
            (entry.job.session_id, entry.job.seq)
            for entry in self.core.scheduler.jobs
            if not entry.job.partial
        }
        missing = self._open.keys() - kept
        # An answer without gateway and subscriber is visible only as a count.
        unseen = sum(action == e.Count("result_for_lost_gateway") for action in actions)
        if len(missing) > drops + unseen:
            raise InvariantError(6, f"lost without a word: {missing}")
        for key in missing:
            del self._open[key]
        if kept - self._open.keys():
            raise InvariantError(6, f"kept though answered: {kept - self._open.keys()}")

    def check_idle(self) -> None:
        """Each worker has all the credits of its ``Ready``."""
        for worker in self.core.scheduler.models.workers:
            free = worker.credits + worker.streamed_credits - len(worker.held) - len(worker.overdue)
            if free != sum(self._credits[worker.identity]):
                raise InvariantError(5, f"{worker.identity!r} has {free} credits")

    def _check_refusal(self, job: m.Job) -> None:
        models, limits = self.core.scheduler.models, self._options.limits
        if not job.model:
            return
        queue, share = models[job.model].queue, len(models)
        audio_ms = queue.audio_ms + m.pcm_duration_ms(job.pcm)
        has_room = audio_ms <= limits.queue_audio_ms_max // share
        if not len(queue) or (has_room and len(queue) < limits.queue_jobs_max // share):
            raise InvariantError(9, f"refused, though {job.model} has room: {job}")

    def _check_queues(self) -> None:
        for model in self.core.scheduler.models:
            self._check_queue(model.queue)

    def _check_queue(self, queue: JobQueue) -> None:
        options = self._options
        # Jobs that come back from workers are always admitted.
        new = [entry for entry in queue if entry.location in ("live", "bulk", "partial")]
        if sum(entry.audio_ms for entry in new) > options.limits.queue_audio_ms_max:
            raise InvariantError(9, f"{len(new)} jobs queued")
        if len(new) > options.limits.queue_jobs_max:
            raise InvariantError(9, f"{len(new)} jobs queued")
        partials = Counter(entry.job.session_id for entry in new if entry.location == "partial")
        if any(count > 1 for count in partials.values()):
            raise InvariantError(6, f"partials not replaced: {partials}")


def _changes(action: e.Action) -> bool:
    return not (isinstance(action, e.Send) and isinstance(action.message, m.Load))


def _refused(job: m.Job, actions: list[e.Action]) -> bool:
    return any(
        isinstance(action, e.Send)
        and action.side == "front"
        and isinstance(action.message, m.Result)
        and action.message.error is not None
        and action.message.error.code == "overloaded"
        and (action.message.session_id, action.message.seq) == (job.session_id, job.seq)
        for action in actions
    )


def _invariant_of(error: AssertionError) -> int:
    text = str(error)
    if "wait for each other" in text:
        return 11
    return 5 if "credits" in text or "both" in text or "exclusive" in text else 6
