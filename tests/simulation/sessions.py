"""Real gateways and clients of a schedule, and the checks of rows against what clients said."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from gateway.session.transcript import join_texts
from tests.simulation.broker_fleet import BrokerFleet
from tests.simulation.clients import SimClient
from tests.simulation.gateway_process import GatewayProcess, settings_of, simulated
from tests.simulation.oracle import InvariantError
from tests.simulation.persistence_process import Database, PersistenceProcess
from tests.simulation.recording import RecordedSession
from tests.simulation.speech import without_accent
from tests.simulation.worker_process import model_names
from tests.simulation.world import World
from wire.records import SegmentCopy

NOWHERE = Path("/nonexistent")
CONFIRM_S = 1.2
"""Longest time from persistence's subscription to the confirmation of all earlier records: the
broker's report, a gateway's tick, and some commits. The outbox's backoff is longer."""


class Sessions:
    """Gateways and clients. A client's session is checked at each row, and at the end."""

    def __init__(
        self,
        world: World,
        fleet: BrokerFleet,
        database: Database,
        persistence: PersistenceProcess,
    ) -> None:
        self._world = world
        self._fleet = fleet
        self._database = database
        self._persistence = persistence
        self._names = count(1)
        self._failure: InvariantError | None = None
        self._all: list[GatewayProcess] = []
        self._recorded: list[RecordedSession] = []
        self._claimed_for_nobody = 0
        """Sessions with the limitation that ``_is_claimed_for_nobody`` describes."""
        self.on_last_chunk: Callable[[SimClient], None] = lambda _client: None
        self.gateways: list[GatewayProcess] = []
        self.clients: list[SimClient] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the gateways and clients, in a patched environment."""
        world, options = self._world, self._world.options
        with contextlib.ExitStack() as stack:
            directory = NOWHERE
            if options.gateway_drains:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self._recorded = stack.enter_context(simulated(world, self._fleet, self._fail))
            stack.callback(self._dispose)
            self._settings = settings_of(
                options.resume_wait_s, directory, model_names(options.models)
            )
            self.gateways += [self._new_gateway() for _ in range(options.gateways)]
            # In turn each model, and none: then the gateway chooses.
            models = (None, *model_names(options.models))
            self.clients += [
                SimClient(
                    world,
                    f"client-{index}",
                    self._pick_gateway,
                    self._check_stored,
                    said_all=lambda client: self.on_last_chunk(client),
                    seen=self._fleet.seen,
                    model=models[(index + 1) % len(models)],
                )
                for index in range(options.sessions)
            ]
            yield

    def replace(self, gateway: GatewayProcess) -> None:
        """Start a successor when ``gateway`` has ended, as its supervisor does."""
        if gateway.alive:
            self._world.after(0.2, lambda: self.replace(gateway))
        elif gateway in self.gateways:
            self.gateways[self.gateways.index(gateway)] = self._new_gateway()

    def recordings(self, violation: str) -> str:
        """The events of the sessions of a client that ``violation`` names, one list for each
        gateway that had the session. ``recording.replay`` replays them."""
        ids = {
            session_id
            for client in self.clients
            for session_id in client.session_ids
            if client.name in violation
        }
        found = [session for session in self._recorded if session.session_id in ids]
        return "".join(f"events of {each.session_id}:\n{each.recording()}\n" for each in found)

    def _dispose(self) -> None:
        for gateway in self._all:
            gateway.server.spool.close()
            gateway.loop.dispose()

    def _fail(self, error: BaseException | str) -> None:
        """Asyncio does not raise the exceptions of callbacks; ``check`` does."""
        violation = error if isinstance(error, InvariantError) else None
        if self._failure is None:
            self._failure = violation or InvariantError(6, f"a gateway fails: {error!r}")

    def _pick_gateway(self) -> GatewayProcess:
        """The gateway of a new connection: all that accept connections share the port."""
        accepting = [g for g in self.gateways if g.alive and not g.server.gate.draining]
        return self._world.rng.choice(accepting or self.gateways)

    def _new_gateway(self) -> GatewayProcess:
        name = f"gateway-{next(self._names)}"
        gateway = GatewayProcess(
            self._world, self._fleet, self._database, self._settings, name, self._fail
        )
        self._all.append(gateway)
        return gateway

    # -------------------------------------------------------------------------------------- checks

    def check(self) -> None:
        """Call now and then. Raises InvariantError."""
        if self._failure is not None:
            raise self._failure
        for gateway in self.gateways:
            gateway.check_limits()
        if self._world.options.only_persistence_loses_records and self._persistence.alive:
            self._check_confirmed(self._persistence.subscribed_s)

    def _check_confirmed(self, subscribed_s: float) -> None:
        if self._world.now_s < subscribed_s + CONFIRM_S:
            return
        for gateway in self.gateways:
            if gateway.alive and (since_s := gateway.unconfirmed_since_s) <= subscribed_s:
                what = f"{gateway.identity!r} has a record of {since_s:.3f} s"
                raise InvariantError(11, f"{what}, persistence is back since {subscribed_s:.3f} s")

    def left(self) -> list[str]:
        """Descriptions of everything that has not ended."""
        waiting = [f"{client.session_id} runs" for client in self.clients if not client.over]
        for gateway in self.gateways:
            if not gateway.alive:
                waiting.append(f"{gateway.identity.decode()} is dead")
            elif left := gateway.left():
                waiting.append(f"{gateway.identity.decode()} has {left}")
        return waiting

    def check_row(self, session_id: str, row: SegmentCopy) -> None:
        """Check a row that is committed: a segment of the client's own audio, at its place."""
        client = next(c for c in self.clients if session_id in c.session_ids)
        if row.provisional:
            return
        segments = client.speech.segments
        said = segments[row.seq] if row.seq < len(segments) else None
        known = said is not None and (row.start_ms, row.end_ms) == (said.start_ms, said.end_ms)
        if known and row.failure is not None:
            return
        if not known or said is None or without_accent(row.segment_text) != said.text:
            raise InvariantError(1, f"{session_id} has row {row} and said {said}")

    def check_end(self) -> None:
        if files := [*self._settings.data_dir.glob("spool/*.spool")]:
            raise InvariantError(12, f"left: {files}")
        for client in self.clients:
            self._check_client(client)
            if client.left and not any(gateway.killed for gateway in client.gateways):
                self._check_abandoned(client)
        if any(gateway.killed for gateway in self._all):
            return  # Records that it had not sent are lost, unless the client resumes.
        left = {client.session_id for client in self.clients if client.left}
        for session_id, row in self._database.tables.sessions.items():
            # A claimed session of a client that left is marked lost by the sweep.
            let_go = bool(row.generation) or (
                session_id in left and session_id in self._fleet.claimed
            )
            if row.status == "active" and not let_go:
                raise InvariantError(12, f"{session_id} is never ended")

    def _check_stored(self, client: SimClient) -> None:
        try:
            # When two workers spelled a segment differently, the row may change once more.
            self._check_rows(client, exactly=False)
        except InvariantError as error:
            raise InvariantError(3, f"reported as stored: {error}") from error

    def _check_client(self, client: SimClient) -> None:
        if client.final is None:
            return
        row = self._database.tables.sessions.get(client.session_id)
        owner = row.gateway_id.encode() if row is not None else b""
        if not client.final.stored and any(
            gateway.killed and (gateway is client.gateway or gateway.identity == owner)
            for gateway in self._all
        ):
            return  # It was not reported as stored, and only the killed gateway had its records.
        if self._is_claimed_for_nobody(client):
            return
        # If not reported as stored, the client may have resumed at a gateway that had lost the
        # session and had not received the claim yet.
        self._check_rows(client, exactly=client.final.stored)

    def _check_abandoned(self, client: SimClient) -> None:
        """For a client that left: the texts that it received and the audio that was acknowledged
        are stored, unless a gateway has claimed the session since without an answer to the client,
        or a gateway ended before the results arrived."""
        if self._is_claimed_for_nobody(client):
            return
        rows = self._database.tables.segments.get(client.session_id, {})
        for index, text in enumerate(client.received):
            row = rows.get(index)
            if row is None or (text and without_accent(row["text"] or "") != without_accent(text)):
                raise InvariantError(1, f"{client.session_id} received {text}, stored {row}")
        if len(rows) >= client.utterances_acknowledged:
            return
        _, generation = client.served_by
        known = self._database.tables.sessions.get(client.session_id)
        claimed = self._fleet.claimed.get(client.session_id, 0)
        if max(claimed, known.generation if known is not None else 0) > generation:
            self._claimed_for_nobody += 1
        elif not any(client.session_id in gateway.cut_short for gateway in client.gateways):
            raise InvariantError(1, f"{client.session_id} said more than {sorted(rows)}")

    def _is_claimed_for_nobody(self, client: SimClient) -> bool:
        """A gateway claimed the session of a client that had left, and never answered it. Records
        of the gateway before it that were not stored yet were refused as of an older generation.
        This is a documented limitation (docs/reliability.md). It never concerns records reported as
        stored, and the stored rows must still be right."""
        tables, session_id = self._database.tables, client.session_id
        row = tables.sessions.get(session_id)
        if row is None or not row.generation:
            return False
        served_by, generation = client.served_by
        if row.gateway_id.encode() == served_by and row.generation <= generation:
            return False
        if client.final is not None and client.final.stored:
            return False
        rows = tables.segments.get(session_id, {})
        missing = {
            (session_id, index) for index in range(len(client.received)) if index not in rows
        }
        without_end = client.final is not None and session_id in tables.stale_ends
        if not (missing or without_end) or not missing <= tables.stale_segments:
            return False
        for index, text in enumerate(client.received):
            stored = rows[index]["text"] if index in rows else text
            if without_accent(stored or "") != without_accent(text or ""):
                return False
        self._claimed_for_nobody += 1
        return True

    def _check_rows(self, client: SimClient, *, exactly: bool) -> None:
        assert client.final is not None
        tables, session_id = self._database.tables, client.session_id
        row, segments = tables.sessions.get(session_id), tables.segments.get(session_id, {})
        if row is None or row.status not in ("completed", "failed"):
            raise InvariantError(1, f"{session_id} was finished and is {row}")
        if sorted(segments) != list(range(len(client.speech.segments))):
            raise InvariantError(1, f"{session_id} has rows {sorted(segments)}")
        if client.final.stored:
            # A client that gets the final result from the database may be earlier than a label.
            labels = tables.labels.get(session_id, {})
            for index, speaker in enumerate(client.final.speakers):
                if speaker is not None and (index not in labels or labels[index][1] != speaker):
                    raise InvariantError(1, f"{session_id}: {client.final}, stored {labels}")
        rows = [segments[index] for index in sorted(segments)]
        if any(segment["provisional"] for segment in rows):
            raise InvariantError(1, f"{session_id} has provisional rows")
        stored = join_texts(segment["text"] or "" for segment in rows)
        final = client.final.text
        if not exactly:
            final, stored = without_accent(final), without_accent(stored)
        # A killed gateway may have stored the end, but not its copy of a text.
        whole = exactly and not any(gateway.killed for gateway in client.gateways)
        text = row.text if whole else without_accent(row.text or "")
        if final != stored or (exactly and text != (stored if whole else without_accent(stored))):
            raise InvariantError(1, f"{session_id}: received {client.final}, stored {row} {stored}")

    @property
    def texts(self) -> list[str | None]:
        """The results of segments that clients received; None: a failed segment."""
        return [text for client in self.clients for text in client.received]

    @property
    def counts(self) -> Counter[str]:
        rows = self._database.tables.sessions.values()
        counts = Counter(row.status for row in rows)
        counts["taken_over"] = sum(row.generation > 0 for row in rows)
        counts["claimed_for_nobody"] = self._claimed_for_nobody
        return counts
