"""Gateways that only send jobs, for schedules without real gateways.

They exercise what real gateways rarely or never do: thousands of jobs in little time, sessions that
move between gateways in one generation, cancellation at any moment, and the bulk lane. A session
sends segments, sends unanswered jobs again, and keeps its record until it is stored.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import count

from broker.events import Received
from gateway.brokers.brokers import FOLLOW_S
from gateway.brokers.choice import BrokerChoice
from gateway.brokers.contact import BrokerContact, JobsLost
from tests.simulation.broker_fleet import BrokerFleet
from tests.simulation.broker_process import BrokerProcess
from tests.simulation.connection import Connection
from tests.simulation.options import JOB_DEADLINE_MS
from tests.simulation.oracle import InvariantError
from tests.simulation.persistence_process import Database
from tests.simulation.speech import Segment, pcm_of, text_of
from tests.simulation.worker_process import model_names
from tests.simulation.world import World
from wire import messages as m
from wire.records import SegmentCopy, SessionStarted, to_body

HELLO_S = 0.5
RESEND_S = 3.0
OVERLOADED_RETRY_S = 0.5
AUDIO_MS_MIN = 10
AUDIO_MS_MAX = 30
PARTIALS_MAX = 3
STARTED = to_body(
    SessionStarted(user_id="", client="", mode="stream", language="", started_at_ms=0)
)


@dataclass(slots=True)
class _Unanswered:
    job: m.Job
    resend_s: float


class JobSession:
    """A session that can move between gateways."""

    def __init__(self, world: World, name: str, *, segments: int, lane: m.Lane, model: str) -> None:
        self.session_id = name
        self.cancelled = False
        self.sends_on_answer = False
        self.results: dict[int, m.Result] = {}
        self._world = world
        self._lane = lane
        self._model = model
        self._segments = segments
        self._sent = 0
        self._unanswered: dict[int, _Unanswered] = {}
        self._pcm: dict[int, bytes] = {}
        self.record = m.Record(session_id=name, record_seq=0, body=STARTED)
        self.record_stored = False
        self.record_sent = 0
        self._record_resend_s = 0.0
        self.gateway: JobGateway | None = None

    @property
    def complete(self) -> bool:
        return self.cancelled or (
            self.record_stored and self._sent == self._segments and not self._unanswered
        )

    @property
    def waits_for(self) -> str:
        return f"{self.session_id}: {sorted(self._unanswered)}, record {self.record_stored}"

    def send_segment(self) -> list[m.Job]:
        """The jobs of the next segment: its partials, and the final one last."""
        if self.cancelled or self._sent == self._segments:
            return []
        seq, rng = self._sent, self._world.rng
        self._sent += 1
        options = self._world.options
        poison = rng.random() < options.poison
        audio_ms = rng.randint(AUDIO_MS_MIN, AUDIO_MS_MAX)
        partials = rng.randint(0, PARTIALS_MAX) if options.partials else 0
        jobs = [
            self._job(seq, AUDIO_MS_MIN * (i + 1) // PARTIALS_MAX, partial=True, poison=False)
            for i in range(partials)
        ]
        jobs.append(self._job(seq, audio_ms, partial=False, poison=poison))
        self._pcm[seq] = jobs[-1].pcm
        self._unanswered[seq] = _Unanswered(jobs[-1], self._world.now_s + RESEND_S)
        return jobs

    def due(self, *, everything: bool = False) -> list[m.Job]:
        """Jobs that are due to be sent again."""
        now_s, jobs = self._world.now_s, []
        for entry in self._unanswered.values():
            if everything or now_s >= entry.resend_s:
                entry.resend_s = now_s + RESEND_S
                jobs.append(entry.job)
        return jobs

    def record_due(self) -> bool:
        now_s = self._world.now_s
        if self.record_stored or self.cancelled or now_s < self._record_resend_s:
            return False
        self._record_resend_s = now_s + RESEND_S
        self.record_sent += 1
        return True

    def take(self, result: m.Result) -> bool:
        """Take a result, and check its text. Returns whether it is the first one of its segment."""
        if result.partial:
            return False
        pcm = self._pcm.get(result.seq)
        if pcm is None:
            raise InvariantError(
                4, f"a result for {self.session_id}, segment {result.seq}: never sent"
            )
        if result.text is not None and result.text != text_of(pcm):
            raise InvariantError(4, f"{self.session_id} receives the text of other audio: {result}")
        entry = self._unanswered.get(result.seq)
        if result.error is not None and result.error.code == "overloaded":
            if entry is not None:
                entry.resend_s = self._world.now_s + OVERLOADED_RETRY_S
            return False
        if entry is None:
            return False
        del self._unanswered[result.seq]
        self.results[result.seq] = result
        return True

    def text_of(self, seq: int) -> str:
        """The text of a segment in a run without faults."""
        return text_of(self._pcm[seq])

    def cancel(self) -> m.Cancel:
        self.cancelled = True
        self._unanswered.clear()
        return m.Cancel(session_id=self.session_id)

    def _job(self, seq: int, audio_ms: int, *, partial: bool, poison: bool) -> m.Job:
        start_ms = seq * AUDIO_MS_MAX
        end_ms = start_ms + audio_ms
        segment = Segment(self.session_id, seq, end_ms if partial else -1, poison)
        return m.Job(
            session_id=self.session_id,
            seq=seq,
            partial=partial,
            lane=self._lane,
            start_ms=start_ms,
            end_ms=end_ms,
            last_chunk_index=seq,
            language="",
            hotwords=(),
            deadline_ms=JOB_DEADLINE_MS,
            pcm=pcm_of(segment, audio_ms),
            model=self._model,
        )


class JobGateway:
    """One process with its links to the brokers."""

    def __init__(self, world: World, fleet: BrokerFleet, database: Database, name: str) -> None:
        self.identity = name.encode()
        self.alive = True
        self.sessions: dict[str, JobSession] = {}
        self._world = world
        self._fleet = fleet
        self._database = database
        self._choice = BrokerChoice()
        self._connections: dict[str, Connection] = {}
        """By the broker's place."""
        self._contacts: dict[str, BrokerContact] = {}
        self._epochs: dict[str, str] = {}
        fleet.attach(self)
        self._hello()
        if world.options.reconnects:
            self._follow()

    def connect(self, broker: BrokerProcess) -> None:
        connection = Connection(self._world, self, broker, "gateway")
        broker.take(connection)
        self._connections[broker.place] = connection
        self._contacts[broker.place] = BrokerContact()
        self._choice.add(broker.place)

    def connection_changed(self, connection: Connection) -> None:
        contact = self._contacts.get(connection.broker.place)
        if contact is not None and connection.connected:
            contact.reconnected(self._world.now_s)

    def send(self, message: m.Job | m.Cancel | m.Record, *, again: bool = False) -> None:
        """Send to the session's broker, or to all."""
        for place in self._choice.brokers_for(message, self._world.now_s, again=again):
            self._send_to(place, message)

    def _send_to(self, place: str, message: m.Message) -> None:
        self._connections[place].to_broker(Received("front", self.identity, message))

    def receive(self, connection: Connection, message: m.Message) -> None:
        place = connection.broker.place
        if not self.alive or place not in self._connections:
            return
        match message:
            case m.Welcome(broker_epoch=epoch):
                self._note_broker(place, epoch)
            case m.Load():
                self._choice.heard(place, message.workers, self._world.now_s)
                self._note_broker(place, message.broker_epoch)
            case m.Result(session_id=session_id) if session_id in self.sessions:
                session = self.sessions[session_id]
                if session.take(message) and session.sends_on_answer:
                    self.send_segment(session)
            case m.Stored():
                if message.gateway_id.encode() != self.identity:
                    raise InvariantError(6, f"{message} for {self.identity!r}")
                self._database.check_stored(message)
                for key in message.keys:
                    if key.kind == "record" and key.session_id in self.sessions:
                        self.sessions[key.session_id].record_stored = True

    def adopt(self, session: JobSession) -> None:
        """Move the session here, and send its unanswered jobs from here."""
        if session.gateway is not None:
            session.gateway.sessions.pop(session.session_id, None)
            session.gateway._choice.forget(session.session_id)
        session.gateway = self
        self.sessions[session.session_id] = session
        self._resend(session, everything=True)

    def send_segment(self, session: JobSession) -> None:
        for job in session.send_segment():
            self.send(job)

    def kill(self) -> None:
        self._world.note("gateway dies", self.identity)
        self.alive = False

    def cut(self, seconds: float) -> None:
        """Lose all messages in both directions for a while."""
        self._world.note("gateway is cut off", (self.identity, seconds))
        for connection in self._connections.values():
            connection.down.cut = connection.up.cut = True
        self._world.after(seconds, self.heal)

    def heal(self) -> None:
        for connection in self._connections.values():
            connection.down.cut = connection.up.cut = False

    def _note_broker(self, place: str, epoch: str) -> None:
        if not self._world.options.reconnects:
            lost = epoch != self._epochs.get(place)
            self._epochs[place] = epoch
        else:
            lost = JobsLost() in self._contacts[place].note(epoch, self._world.now_s)
        if lost:
            self._resend_all(self._choice.sessions_of(place))

    def _resend_all(self, session_ids: Iterable[str]) -> None:
        for session_id in session_ids:
            if session_id in self.sessions:
                self._resend(self.sessions[session_id], everything=True)

    def _follow(self) -> None:
        """As ``gateway.brokers.brokers``."""
        if not self.alive:
            return
        now_s = self._world.now_s
        for place in self._connections.keys() - self._fleet.listed:
            if not self._choice.is_live(place, now_s):
                del self._connections[place], self._contacts[place]
                self._choice.remove(place)
        self._resend_all(self._choice.moves(now_s))
        self._world.after(FOLLOW_S, self._follow)

    def _hello(self) -> None:
        if not self.alive:
            return
        for place in self._connections:
            self._send_to(place, m.Hello(gateway_id=self.identity.decode()))
        for session in self.sessions.values():
            self._resend(session)
        self._world.after(HELLO_S, self._hello)

    def _resend(self, session: JobSession, *, everything: bool = False) -> None:
        for job in session.due(everything=everything):
            self.send(job)
        if session.record_due():
            self.send(session.record, again=session.record_sent > 1)


class JobSessions:
    """All sessions and gateways. A killed gateway is replaced, and its sessions move to others."""

    def __init__(self, world: World, fleet: BrokerFleet, database: Database) -> None:
        self._world = world
        self._fleet = fleet
        self._database = database
        self._names = count(1)
        options = world.options
        self.gateways = [self._new_gateway() for _ in range(options.gateways)]
        self.sessions: list[JobSession] = []
        for index in range(options.sessions):
            greedy = options.greedy_segments if index == 0 else 0
            lane: m.Lane = "bulk" if options.bulk and index % 2 else "live"
            least = options.segments_max // 2 if options.greedy_segments else 1
            segments = greedy or world.rng.randint(least, options.segments_max)
            # In turn each model, and any.
            models = ("", *model_names(options.models))
            session = JobSession(
                world,
                f"session-{index}",
                segments=segments,
                lane=lane,
                model=models[(index + 1) % len(models)],
            )
            self.sessions.append(session)
            world.rng.choice(self.gateways).adopt(session)
            session.sends_on_answer = bool(options.greedy_segments) and not greedy
            for _ in range(1 if session.sends_on_answer else segments):
                begin_s = 0.5 if greedy else world.rng.uniform(0, options.fault_s)
                world.after(begin_s, partial(self._send_segment, session))

    def running(self) -> contextlib.AbstractContextManager[None]:
        """The counterpart of ``Sessions.running``."""
        return contextlib.nullcontext()

    def recordings(self, _violation: str) -> str:
        """There are no sessions of gateways to record."""
        return ""

    def left(self) -> list[str]:
        """Descriptions of everything that has not ended."""
        return [session.waits_for for session in self.sessions if not session.complete]

    def check(self) -> None:
        """Sessions check each result when it arrives."""

    def check_row(self, session_id: str, row: SegmentCopy) -> None:
        session = next(s for s in self.sessions if s.session_id == session_id)
        if row.failure is None and row.segment_text != session.text_of(row.seq):
            raise InvariantError(1, f"{session_id} has row {row}, with the text of other audio")

    def check_end(self) -> None:
        """All is checked before."""

    @property
    def texts(self) -> list[str | None]:
        """The results of segments; None: a failed segment."""
        return [r.text for session in self.sessions for r in session.results.values()]

    @property
    def counts(self) -> Counter[str]:
        return Counter()

    def pick_gateway(self) -> JobGateway:
        return self._world.rng.choice(self.gateways)

    def pick_session(self) -> JobSession:
        return self._world.rng.choice(self.sessions)

    def kill_gateway(self) -> None:
        gateway = self.pick_gateway()
        gateway.kill()
        self.gateways.remove(gateway)
        self.gateways.append(self._new_gateway())
        for session in list(gateway.sessions.values()):
            delay_s = self._world.rng.uniform(0.1, 4.0)
            self._world.after(delay_s, partial(self.move, session))

    def move(self, session: JobSession) -> None:
        self._world.note("session moves", session.session_id)
        self.pick_gateway().adopt(session)

    def cancel(self, session: JobSession) -> None:
        if session.gateway is not None and not session.cancelled:
            session.gateway.send(session.cancel())

    def _send_segment(self, session: JobSession) -> None:
        if session.gateway is not None:
            session.gateway.send_segment(session)

    def _new_gateway(self) -> JobGateway:
        name = f"gateway-{next(self._names)}"
        return JobGateway(self._world, self._fleet, self._database, name)
