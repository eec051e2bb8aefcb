"""The process with a real database; the test plays the broker's two sockets."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import zmq

from runtime import exit_codes, settings
from tests.persistence import sent
from tools.lab.harness.process import LoggedProcess
from wire import codec, publication, sockets
from wire.messages import Refused, Stored, StoredKey
from wire.records import RecordBody

ANSWER_MS_MAX = 60_000


class Broker:
    """The broker's events and front sockets, without a broker."""

    def __init__(self, directory: Path) -> None:
        self.events = f"ipc://{directory}/events"
        self.frontend = f"ipc://{directory}/frontend"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._xpub = sockets.bind_xpub(self._context, self.events)
        self._router: zmq.Socket[bytes] | None = None
        self._sequence = 0
        self._persistence = b""

    def open_frontend(self) -> None:
        self._router = sockets.bind_router(self._context, self.frontend)

    def await_subscriber(self) -> None:
        """Wait for the subscriptions to both topics."""
        missing = set(publication.TOPICS)
        while missing:
            assert self._xpub.poll(ANSWER_MS_MAX)
            message = self._xpub.recv()
            if message[:1] == b"\1":  # else an earlier subscriber has gone
                missing.discard(message[1:])

    def publish_segments(self, session_id: str, seqs: Sequence[int]) -> set[StoredKey]:
        """Publish results of ``session_id``. Returns their keys."""
        for seq in seqs:
            self._publish(sent.published_result(self._sequence, sent.result(session_id, seq)))
        return {StoredKey(session_id=session_id, kind="result", seq=seq) for seq in seqs}

    def publish_record(self, session_id: str, body: RecordBody, record_seq: int) -> StoredKey:
        self._publish(
            sent.published_record(
                self._sequence, body, session_id=session_id, record_seq=record_seq
            )
        )
        return StoredKey(session_id=session_id, kind="record", seq=record_seq)

    def publish_raw(self, frames: list[bytes]) -> None:
        self._publish(frames)

    def stored(self, count: int) -> set[StoredKey]:
        """Wait for exactly ``count`` confirmed keys."""
        keys: list[StoredKey] = []
        assert self._router is not None
        while len(keys) < count:
            assert self._router.poll(ANSWER_MS_MAX), f"{len(keys)} of {count} confirmed"
            self._persistence, *frames = self._router.recv_multipart()
            message = codec.decode(frames)
            assert isinstance(message, Stored)
            assert message.gateway_id == "gateway-1"
            keys.extend(message.keys)
        assert len(keys) == len(set(keys)) == count
        return set(keys)

    def refuse(self, refused: Refused) -> None:
        assert self._router is not None
        self._router.send_multipart([self._persistence, *codec.encode(refused)])

    def silent(self) -> bool:
        return self._router is None or not self._router.poll(0)

    def close(self) -> None:
        self._xpub.close()
        if self._router is not None:
            self._router.close()
        self._context.term()

    def _publish(self, frames: list[bytes]) -> None:
        self._xpub.send_multipart(frames, zmq.DONTWAIT)
        self._sequence += 1


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    opened = Broker(tmp_path)
    yield opened
    opened.close()


def persistence(broker: Broker, database: str, **environment: str) -> LoggedProcess:
    return LoggedProcess(
        "persistence",
        BROKER_EVENTS=broker.events,
        BROKER_FRONTEND=broker.frontend,
        DATABASE_URL=database,
        **environment,
    )


def query(database: str, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        return connection.execute(text.encode()).fetchall()


def segment_count(database: str) -> int:
    return int(query(database, "SELECT count(*) FROM asr_segments")[0][0])


def test_rows_are_stored_and_confirmed_before_sigterm_ends_the_process(
    broker: Broker, database: str
) -> None:
    broker.open_frontend()
    with persistence(broker, database) as process:
        broker.await_subscriber()
        expected = {broker.publish_record("s", sent.started(), 0)}
        expected |= broker.publish_segments("s", range(100))
        broker.publish_raw([b"result", b"no number", b"garbage"])
        expected |= {broker.publish_record("s", sent.chunks(*range(50)), 1)}
        expected |= {broker.publish_record("s", sent.finished(), 2)}
        assert broker.stored(len(expected)) == expected
        assert segment_count(database) == 100
        assert query(database, "SELECT status, started FROM asr_sessions") == [("completed", True)]
        stored = process.event("session_stored")
        assert (stored["session_id"], stored["status"]) == ("s", "completed")
        broker.refuse(Refused(version_min=1, version_max=1, setting="BROKER_FRONTEND"))
        assert process.event("wrong_endpoint")["setting"] == "BROKER_FRONTEND"
        assert process.terminate() == exit_codes.OK
        assert process.events[-1]["event"] == "persistence_stopped"
        assert "text 7" not in "\n".join(process.lines)


def test_keys_are_confirmed_only_after_commit(broker: Broker, database: str) -> None:
    broker.open_frontend()
    with persistence(broker, database) as process:
        process.event("schema_migrated")
        broker.await_subscriber()
        with psycopg.connect(database) as blocker, psycopg.connect(database) as watcher:
            blocker.execute("LOCK TABLE asr_segments IN ACCESS EXCLUSIVE MODE")
            expected = broker.publish_segments("s", range(3))
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"
            while watcher.execute(waits).fetchone() is None:
                watcher.rollback()
            assert broker.silent()
            blocker.rollback()
        assert broker.stored(3) == expected
        assert segment_count(database) == 3


def test_a_kill_between_commit_and_confirmation_leaves_one_row(
    broker: Broker, database: str
) -> None:
    with persistence(broker, database) as process:
        broker.await_subscriber()
        process.event("schema_migrated")
        # Nothing is bound to the front endpoint yet, so the confirmation cannot be sent.
        broker.publish_segments("s", range(5))
        while segment_count(database) < 5:
            assert process.events[-1]["event"] != "database_unavailable"
        process.kill()
    broker.open_frontend()
    with persistence(broker, database) as process:
        broker.await_subscriber()
        expected = broker.publish_segments("s", range(5))
        assert broker.stored(5) == expected
        assert segment_count(database) == 5


def test_waiting_rows_are_written_and_confirmed_at_sigterm(broker: Broker, database: str) -> None:
    broker.open_frontend()
    # Without SIGTERM the batch would wait 5 s for more rows.
    with persistence(broker, database, PERSISTENCE_BATCH_WAIT_MS="5000") as process:
        process.event("schema_migrated")
        broker.await_subscriber()
        expected = broker.publish_segments("s", range(20))
        process.send_signal(signal.SIGTERM)
        assert broker.stored(20) == expected
        assert process.wait() == exit_codes.OK
        assert process.events[-1]["rows_left"] == 0


@pytest.fixture
def own_services(tmp_path: Path) -> Iterator[tuple[LoggedProcess, str]]:
    """A PostgreSQL server for this test alone, which kills or stops it."""
    data_dir = tmp_path / "data"
    address = settings.DatabaseSettings(data_dir=data_dir, db_host=None).database_address()
    with LoggedProcess("tools.embedded", DATA_DIR=str(data_dir), REDIS_URL="redis://x") as process:
        process.event("embedded_services_ready")
        yield process, address


def postgres_of(services: LoggedProcess) -> psutil.Process:
    (postmaster,) = psutil.Process(services.pid).children()
    return postmaster


def test_all_rows_are_written_after_the_database_was_killed(
    broker: Broker, own_services: tuple[LoggedProcess, str]
) -> None:
    services, database = own_services
    broker.open_frontend()
    with persistence(broker, database) as process:
        process.event("schema_migrated")
        broker.await_subscriber()
        before = broker.publish_segments("before", range(10))
        assert broker.stored(10) == before
        seen = len(process.events)
        postgres_of(services).kill()
        during = broker.publish_segments("during", range(2_500))
        process.event("database_unavailable", after=seen)
        assert broker.stored(2_500) == during
        assert segment_count(database) == 2_510
        assert process.terminate() == exit_codes.OK
        names = [event["event"] for event in process.events]
        assert names.count("database_available") >= 2


def test_all_rows_are_written_after_the_database_was_stopped(
    broker: Broker, own_services: tuple[LoggedProcess, str]
) -> None:
    services, database = own_services
    broker.open_frontend()
    with persistence(broker, database, PERSISTENCE_WRITE_TIMEOUT_S="0.5") as process:
        process.event("database_available")
        broker.await_subscriber()
        seen = len(process.events)
        postmaster = postgres_of(services)
        family = [postmaster, *postmaster.children()]
        for member in family:
            member.suspend()
        expected = broker.publish_segments("s", range(200))
        process.event("database_unavailable", after=seen)
        for member in family:
            member.resume()
        assert broker.stored(200) == expected
        assert segment_count(database) == 200
