"""Worker processes: the real job book, and an inference loop in simulated time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import count
from random import Random

from asr_worker.batching import BatchLimits
from asr_worker.job_book import Action, JobBook, JobBooks, JobsDiscarded, MessageRejected
from asr_worker.recognizer.protocol import Recognition
from broker.events import Received
from tests.simulation.broker_fleet import BrokerFleet
from tests.simulation.broker_process import BrokerProcess
from tests.simulation.connection import Connection
from tests.simulation.oracle import InvariantError
from tests.simulation.speech import embedding_of_voice, is_poison, text_of, voice_of
from tests.simulation.world import World
from wire import messages as m

BEAT_S = 0.5
HANG_S = 2.0
"""A longer batch stops the heartbeats; the supervisor kills the worker a little later."""
BATCH_S_MIN = 0.01
BATCH_AUDIO_MS_MAX = 10_000
SLOW_FACTOR = 10.0


class WorkerProcess:
    """One worker process. After its end its supervisor starts another one."""

    def __init__(self, world: World, fleet: BrokerFleet, name: str, model: str) -> None:
        options = world.options
        self.identity = name.encode()
        self.model = model
        self.alive = True
        self._world = world
        self._fleet = fleet
        self._connections: dict[str, Connection] = {}
        """By the broker's place."""
        streams = Random(f"streaming model of {name}").random() < options.streaming_share
        abilities = m.Abilities(
            batch_jobs=options.batch_jobs_max, streaming=streams, speakers=options.speakers
        )
        self._all = JobBook(
            m.Ready(
                worker_id=name,
                credits=0,
                model="hash",
                served_name=model,
                device="none",
                abilities=abilities,
            ),
            BatchLimits(
                jobs_max=options.batch_jobs_max,
                audio_ms_max=BATCH_AUDIO_MS_MAX,
                streamed_jobs_max=options.streamed_jobs_max if streams else 0,
            ),
        )
        self._books = JobBooks(self._all)
        self._accent = f"~{name}" if options.accents else ""
        self._slow = options.slow_workers and world.rng.random() < 0.5 and not world.healing
        self._batch: list[m.WorkerJob] = []
        self._batch_began_s = 0.0
        self._stopped_until_s = 0.0
        self._inbox: list[tuple[Connection, m.Message]] = []
        self._draining = False
        self._hangs = False
        self.liar = False
        fleet.attach(self)
        world.after(world.rng.uniform(0, BEAT_S), self._beat)

    def connect(self, broker: BrokerProcess) -> None:
        connection = Connection(self._world, self, broker, "worker")
        broker.take(connection)
        self._connections[broker.place] = connection
        self._follow([connection])

    def receive(self, connection: Connection, message: m.Message) -> None:
        if not self.alive:
            return
        if self._stopped:
            self._inbox.append((connection, message))
            return
        place = connection.broker.place
        if place in self._books.by_place:  # Else it has no address any more.
            self._send(place, self._books.by_place[place].receive(message))
        self._turn()

    def connection_changed(self, connection: Connection) -> None:
        """A process that is stopped notices later."""
        if self._stopped:
            delay_s = self._stopped_until_s - self._world.now_s + 0.01
            self._world.after(delay_s, lambda: self.connection_changed(connection))
        elif self.alive:
            self._follow([connection] if connection.connected else [])

    def _follow(self, new: Iterable[Connection]) -> None:
        for place in self._connections.keys() - self._fleet.listed:
            if not self._connections[place].connected:
                del self._connections[place]
        connected = sum(each.connected for each in self._connections.values())
        places = [connection.broker.place for connection in new]
        for place, action in self._books.follow(self._connections, connected, places):
            self._send(place, [action])

    # ------------------------------------------------------------------------------------- faults

    def kill(self) -> None:
        self._world.note("worker dies", self.identity)
        self.alive = False

    def stop(self) -> None:
        """SIGSTOP for a while."""
        self._stopped_until_s = self._world.now_s + self._world.rng.uniform(0.5, 5.0)
        self._world.note("worker stops", (self.identity, self._stopped_until_s))

    def cont(self) -> None:
        self._stopped_until_s = 0.0
        self._slow = False

    def hang(self) -> None:
        """The next batch never ends."""
        self._hangs = True

    def lie(self) -> None:
        """Send a result in the current epoch for a job that another worker may hold. Its text is
        right, because the job may be assigned to this worker before it arrives."""
        broker = self._fleet.pick()
        core = broker.core
        if core is None or self._stopped or not len(core.scheduler.jobs):
            return
        self.liar = True
        entry = self._world.rng.choice(list(core.scheduler.jobs))
        lie = m.WorkerResult(
            broker_epoch=core.epoch,
            job_id=entry.job_id,
            attempt=1,
            text=text_of(entry.job.pcm),
            error=None,
            tokens=(),
            infer_ms=1,
        )
        self._send(broker.place, [lie])

    def bye(self) -> None:
        """SIGTERM: return jobs that have not begun, and finish or give up the rest."""
        if self._draining or self._stopped:
            return
        self._draining = True
        for place, book in self._books.by_place.items():
            self._send(place, [book.drain()])
        if self._hangs or self._world.rng.random() < 0.2:
            for place, book in self._books.by_place.items():
                self._send(place, [book.give_up()])
            self._world.after(0.2, self.kill)
        elif not self._batch:
            self._world.after(0.2, self.kill)

    # --------------------------------------------------------------------------------------- loops

    @property
    def _stopped(self) -> bool:
        return self._world.now_s < self._stopped_until_s

    def _beat(self) -> None:
        if not self.alive:
            return
        world = self._world
        if not self._stopped:
            inbox, self._inbox = self._inbox, []
            for connection, message in inbox:
                self.receive(connection, message)
            self._follow([])
            busy_s = world.now_s - self._batch_began_s if self._batch else 0.0
            if busy_s < HANG_S:
                for place, book in self._books.by_place.items():
                    beat = m.Heartbeat(
                        worker_id=self.identity.decode(),
                        busy_ms=round(busy_s * 1000),
                        credits=book.credits,
                        streamed_credits=book.streamed_credits,
                    )
                    self._send(place, [beat])
            elif self._hangs and busy_s > HANG_S + 1.0:
                self.kill()
        world.after(BEAT_S, self._beat)

    def _turn(self) -> None:
        if self._batch or not self._all.queued:
            return
        self._batch = self._all.take_batch()
        self._batch_began_s = self._world.now_s
        if self._hangs:
            self._world.note("worker hangs", self.identity)
            return
        batch_s = self._world.rng.uniform(BATCH_S_MIN, self._world.options.batch_s_max)
        self._world.after(batch_s * (SLOW_FACTOR if self._slow else 1.0), self._finish_batch)

    def _finish_batch(self) -> None:
        if not self.alive:
            return
        if self._stopped:
            left_s = self._stopped_until_s - self._world.now_s
            self._world.after(left_s + 0.01, self._finish_batch)
            return
        if any(is_poison(job.pcm) for job in self._batch):
            self._world.note("worker is poisoned", self.identity)
            self.kill()
            return
        batch, self._batch = self._batch, []
        recognitions = [
            Recognition(
                text=text_of(job.pcm) + self._accent,
                embedding=embedding_of_voice(voice_of(job.pcm)) if job.speakers else b"",
            )
            for job in batch
        ]
        infer_ms = round((self._world.now_s - self._batch_began_s) * 1000)
        for result in self._all.answer(batch, recognitions, infer_ms):
            if (place := self._books.place_of(result)) is not None:
                self._send(place, [result])
        if self._draining:
            self._world.after(0.2, self.kill)
        self._turn()

    def _send(self, place: str, actions: Iterable[Action]) -> None:
        for action in actions:
            if action == JobsDiscarded("over_credit"):
                raise InvariantError(5, f"{self.identity!r} discards a job over its credits")
            if not isinstance(action, JobsDiscarded | MessageRejected):
                self._connections[place].to_broker(Received("back", self.identity, action))


def model_names(models: int) -> list[str]:
    return [f"model-{index}" for index in range(models)]


class Supervisor:
    """Keeps ``options.workers`` workers running, in turn one of each model."""

    def __init__(self, world: World, fleet: BrokerFleet) -> None:
        self._world = world
        self._fleet = fleet
        self._names = count(1)
        self._starting: Counter[str] = Counter()
        self._away_until_s: dict[str, float] = {}
        self.workers: list[WorkerProcess] = []
        names = model_names(world.options.models)
        self._wanted = [names[slot % len(names)] for slot in range(world.options.workers)]
        for model in self._wanted:
            self._start(model)
        self._check()

    def pick(self) -> WorkerProcess | None:
        return self._world.rng.choice(self.workers) if self.workers else None

    def _check(self) -> None:
        self.workers = [worker for worker in self.workers if worker.alive]
        missing = Counter(self._wanted)
        missing.subtract(Counter(worker.model for worker in self.workers))
        missing.subtract(self._starting)
        for model in missing.elements():
            if self._world.healing or self._world.now_s >= self._away_until_s.get(model, 0.0):
                self._starting[model] += 1
                delay_s = self._world.rng.uniform(0.1, 0.8)
                self._world.after(delay_s, partial(self._restart, model))
        self._world.after(0.2, self._check)

    def outage(self) -> None:
        """All workers of a model end, and none is started for a while."""
        model = self._world.rng.choice(self._wanted)
        self._away_until_s[model] = self._world.now_s + self._world.rng.uniform(1.0, 8.0)
        self._world.note("model has no workers", model)
        for worker in self.workers:
            if worker.alive and worker.model == model:
                worker.kill()

    def _restart(self, model: str) -> None:
        self._starting[model] -= 1
        self._start(model)

    def _start(self, model: str) -> None:
        name = f"worker-{next(self._names)}"
        self._world.note("worker starts", (name, model))
        self.workers.append(WorkerProcess(self._world, self._fleet, name, model))
