"""The gateway process: the real server, its sessions, connections, takeovers and spool, on an event
loop in simulated time. Sockets, Redis, PostgreSQL and speech detection are simulated."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import structlog

from broker.events import Received
from gateway.brokers.client import BrokerClient
from gateway.dialects.native import Native
from gateway.draining import drain
from gateway.server import Server
from gateway.settings import GatewaySettings
from gateway.web.websocket import WebSocketConnection
from tests.simulation.broker_fleet import Addresses, BrokerFleet
from tests.simulation.client_socket import SimSocket
from tests.simulation.connection import Connection
from tests.simulation.event_loop import WorldLoop
from tests.simulation.oracle import InvariantError
from tests.simulation.persistence_process import Database, Reader
from tests.simulation.recording import RecordedSession
from tests.simulation.world import World
from wire import messages as m

HELLO_S = 0.5
TICK_S = 0.2
FRAME_BYTES = 1024
WALL_MS = 1_700_000_000_000


class SimLink(BrokerClient):
    """The real broker client without its socket."""

    def __init__(self, process: GatewayProcess, place: str, **options: Any) -> None:
        super().__init__(place, **options)
        self._process = process
        self._place = place
        self._jobs_sent: set[tuple[str, int]] = set()
        self._closed = False

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.connection = self._process.connect(self._place)
        self._say()

    async def close(self) -> None:
        self._closed = True

    def send(self, message: m.Message) -> bool:
        if isinstance(message, m.Job) and not message.partial:
            self._jobs_sent.add((message.session_id, message.seq))
        if self._process.alive and not self._closed:
            self.connection.to_broker(Received("front", self._process.identity, message))
        return True

    def connection_changed(self) -> None:
        if self.connection.connected:
            self._contact.reconnected(self._loop.time())

    def take(self, message: m.Message) -> None:
        if isinstance(message, m.Welcome | m.Load):
            is_new = message.broker_epoch != self._contact.epoch
            if is_new:
                self._jobs_sent.clear()
            self._note_broker(message.broker_epoch)
            if is_new:
                self._process.check_resent(self._place, self._jobs_sent)
        if isinstance(message, m.Stored):
            self._process.database.check_stored(message)
        if not isinstance(message, m.Welcome):
            self._on_message(message)

    def _say(self) -> None:
        if self._closed:
            return
        self.send(m.Hello(gateway_id=self._gateway_id))
        self._loop.call_later(HELLO_S, self._say)


class _Detector:
    """Speech probability 1 for a frame that does not begin with zero."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self) -> None: ...

    async def probabilities(self, _stream: object, pcm: bytes) -> Sequence[float]:
        await asyncio.sleep(self._world.rng.uniform(0.0, self._world.options.detect_s_max))
        return [1.0 if pcm[i] else 0.0 for i in range(0, len(pcm), FRAME_BYTES)]


class _RedisMetadata:
    """Redis is unavailable: nothing depends on it."""

    gateways = 1
    known_s = float("inf")

    def known_connections(self, own: int) -> int:
        return own

    ready = False

    def open(self, _connections: Callable[[], int]) -> None: ...

    def update_session(self, _session_id: str, **_fields: object) -> None: ...

    async def session_exists(self, _session_id: str) -> None: ...


class _Decoders:
    async def start(self) -> None: ...


class GatewayProcess:
    """One gateway process. After its end another one takes its place."""

    def __init__(
        self,
        world: World,
        fleet: BrokerFleet,
        database: Database,
        settings: GatewaySettings,
        name: str,
        failed: Callable[[BaseException | str], None],
    ) -> None:
        self.identity = name.encode()
        self.alive = True
        self.killed = False
        self.cut_short: frozenset[str] = frozenset()
        """Sessions that had not ended when the drain deadline was over."""
        self._world = world
        self._fleet = fleet
        self.database = database
        self._sockets: list[SimSocket] = []
        self.loop = WorldLoop(world, failed)  # type: ignore[abstract]
        with self._made_of(name):
            self.server = Server(settings)
        world.note("gateway starts", name)
        with self.loop.entered():
            self.loop.create_task(self.server.open())

    def generation_of(self, session_id: str) -> int:
        """Generation of the session in this process; the highest possible one without the session,
        so that no check is relaxed for it."""
        runner = self.server.registry.find(session_id)
        return sys.maxsize if runner is None else runner.session.resume_point.generation

    def _made_of(self, name: str) -> contextlib.AbstractContextManager[Any]:
        made = contextlib.ExitStack()
        made.enter_context(
            patch(
                "gateway.brokers.brokers.BrokerClient",
                lambda place, **options: SimLink(self, place, **options),
            )
        )
        made.enter_context(self._parts(name))
        return made

    def _parts(self, name: str) -> contextlib.AbstractContextManager[Any]:
        return patch.multiple(
            "gateway.server",
            VadEngine=lambda: _Detector(self._world),
            SessionReader=lambda _address: Reader(self._world, self.database),
            RedisMetadata=lambda _address, _gateway_id: _RedisMetadata(),
            DecoderPool=lambda _processes_max: _Decoders(),
            new_identity=lambda _role: name,
        )

    # ------------------------------------------------------------------------------------- sockets

    def connect(self, place: str) -> Connection:
        broker = self._fleet.listed[place]
        connection = Connection(self._world, self, broker, "gateway")
        broker.take(connection)
        return connection

    def receive(self, connection: Connection, message: m.Message) -> None:
        if self.alive and (link := self._link(connection)) is not None:
            self.loop.call_soon(link.take, message)

    def connection_changed(self, connection: Connection) -> None:
        if self.alive and (link := self._link(connection)) is not None:
            self.loop.call_soon(link.connection_changed)

    def _link(self, connection: Connection) -> SimLink | None:
        """None: it is closed."""
        return cast(SimLink | None, self.server.brokers.clients.get(connection.broker.place))

    @property
    def _links(self) -> list[SimLink]:
        return [cast(SimLink, client) for client in self.server.brokers.clients.values()]

    def serve(self, socket: SimSocket) -> None:
        """A WebSocket upgrade of a client."""

        async def run() -> None:
            model = self.server.gate.model_of("")
            refusal = await self.server.gate.enter(model=model)
            if refusal is not None:
                self._world.note("refused", refusal.code)
                socket.refuse()
                return
            try:
                socket.accept()
                connection = WebSocketConnection(
                    cast(Any, socket), Native(), self.server, admitted=model
                )
                await connection.run()
            finally:
                self.server.gate.leave()

        if not self.alive:
            socket.reset()
            return
        self._sockets.append(socket)
        self.loop.call_soon(lambda: self.loop.create_task(run()))

    # --------------------------------------------------------------------------------------- faults

    def kill(self) -> None:
        self._world.note("gateway dies", self.identity)
        self.killed = True
        self._end()

    def _end(self) -> None:
        self.alive = False
        self.loop.kill()
        self.server.spool.close()
        for socket in self._sockets:
            socket.reset()

    def stop(self) -> None:
        """SIGSTOP for a while."""
        seconds = self._world.rng.uniform(0.3, 5.0)
        self._world.note("gateway stops", (self.identity, seconds))
        self.loop.stop_for(seconds)

    def cut(self, seconds: float) -> None:
        self._world.note("gateway is cut off", (self.identity, seconds))
        both = self._world.rng.random() < 0.5
        one = self._world.rng.random() < 0.5
        for link in self._links:
            link.connection.down.cut = both or one
            link.connection.up.cut = both or not one
        self._world.after(seconds, self.heal)

    def heal(self) -> None:
        for link in self._links:
            link.connection.down.cut = link.connection.up.cut = False

    def terminate(self) -> None:
        """SIGTERM."""

        async def run() -> None:
            await drain(self.server)
            self.cut_short = frozenset(self.server.sessions)
            self._world.note("gateway ends", self.identity)
            self._end()

        if not self.server.gate.draining:
            self._world.note("gateway drains", self.identity)
            self.loop.call_soon(lambda: self.loop.create_task(run()))

    # -------------------------------------------------------------------------------------- checks

    def check_resent(self, place: str, jobs: set[tuple[str, int]]) -> None:
        """All unanswered jobs of a broker's sessions must be sent to it in a new epoch."""
        for session_id in self.server.brokers._choice.sessions_of(place):
            if (runner := self.server.sessions.get(session_id)) is None:
                continue
            for pending in runner.session._jobs._pending:
                if pending.result is None and (session_id, pending.job.seq) not in jobs:
                    raise InvariantError(11, f"{session_id}, {pending.job.seq}: not sent again")

    def check_limits(self) -> None:
        if len(self.server.outbox) > self.server.outbox._limit:
            raise InvariantError(9, f"{len(self.server.outbox)} records wait")

    @property
    def unconfirmed_since_s(self) -> float:
        """Time of the oldest record without a confirmation; infinity without one."""
        waiting = self.server.outbox._waiting.values()
        return min((entry.since_s for entry in waiting), default=math.inf)

    def left(self) -> str:
        """A description of what has not ended."""
        server = self.server
        counts = {
            "sessions": len(server.sessions),
            "outbox": len(server.outbox),
            "spool": len(server.spool),
            "claims": len(server.registry._takeover._claims),
            "connections": server.gate.connections,
        }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


class _Clock:
    """Replaces the module ``time``."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now_s

    def time_ns(self) -> int:
        return WALL_MS * 1_000_000 + int(self._world.now_s * 1e9)


class _Secrets:
    def __init__(self) -> None:
        self._tokens = count(1)

    def token_urlsafe(self, _bytes: int) -> str:
        return f"token-{next(self._tokens)}"


async def _no_probe(_vad: object, _admission: object) -> None: ...


@contextlib.contextmanager
def simulated(
    world: World, fleet: BrokerFleet, failed: Callable[[BaseException | str], None]
) -> Iterator[list[RecordedSession]]:
    """The modules of a gateway with simulated time, without logs and load probes. Yields the list
    of sessions that they create."""
    sessions: list[RecordedSession] = []

    def recorded(*arguments: Any, **options: Any) -> RecordedSession:
        sessions.append(RecordedSession(*arguments, **options))
        return sessions[-1]

    def fail(runner: Any) -> None:
        # The real one logs and continues; here it is a bug.
        failed(sys.exc_info()[1] or "session failed")

    clock = _Clock(world)
    configured = structlog.get_config()
    with contextlib.ExitStack() as stack:
        structlog.configure(
            processors=[_drop], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False
        )
        stack.callback(lambda: structlog.configure(**configured))
        for module in (
            "server",
            "session.registry",
            "admission.gate",
            "session.runner",
            "draining",
            "web.websocket",
        ):
            stack.enter_context(patch(f"gateway.{module}.time", clock))
        stack.enter_context(
            patch("gateway.brokers.brokers.BrokerAddresses", lambda _listed: Addresses(fleet))
        )
        stack.enter_context(patch("gateway.session.registry.Session", recorded))
        stack.enter_context(patch("gateway.session.registry.secrets", _Secrets()))
        stack.enter_context(patch("gateway.server.TICK_S", TICK_S))
        # Simulated audio repeats, so much of it would be tones, and no utterances.
        stack.enter_context(patch("gateway.session.segmenter.is_tone", lambda _pcm: False))
        stack.enter_context(patch("gateway.session.transcript_store.RESULTS_PER_BLOCK", 2))
        stack.enter_context(patch("gateway.server.probe_load", _no_probe))
        # A tenth of the time of a schedule is that of metrics, which nothing reads.
        stack.enter_context(patch("gateway.server.Server._show", lambda _server, _now_s: None))
        stack.enter_context(patch("gateway.session.runner.SessionRunner.fail", fail))
        stack.enter_context(patch("gateway.storage.durable.os.fsync", lambda _descriptor: None))
        yield sessions


def _drop(_logger: object, _name: str, _event: object) -> Any:
    raise structlog.DropEvent


def settings_of(resume_wait_s: float, data_dir: Path, models: Sequence[str]) -> GatewaySettings:
    return GatewaySettings(
        asr_models=",".join(f"{name}=hash" for name in models),
        data_dir=data_dir,
        resume_wait_s=resume_wait_s,
        endpoint_silence_ms=200,
        max_connections=0,
        est_wait_ms_max=1_000_000,
        admit_utilisation_max=0,
        admit_sessions_per_s_max=0,
        admit_busy_max=0,
        admit_delay_ms_max=0,
    )
