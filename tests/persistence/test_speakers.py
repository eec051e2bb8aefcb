from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from persistence.batch_buffer import Entry
from persistence.migrate import load_migrations, migrate
from persistence.reads import SessionReader
from persistence.speakers import erase_old
from persistence.store import write
from tests.persistence import sent
from wire.records import DEFAULT_TENANT

Connection = psycopg.Connection[Any]
VOICE, OTHER = b"\0\0\x80?\0\0\0\0", b"\0\0\0\0\0\0\x80?"
HOUR_S = 3_600.0


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        migrate(opened)
        yield opened


def labels(connection: Connection, session_id: str = "s") -> list[int]:
    query = "SELECT speaker FROM asr_speakers WHERE session_id = %s ORDER BY segment_index"
    return [row[0] for row in connection.execute(query, (session_id,))]


def voices(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM asr_speaker_centroids").fetchone()
    assert row is not None
    return int(row[0])


RECORDS = [
    sent.entry(sent.started(), seq=0),
    sent.entry(sent.labels(0, 1, 2, 1, centroids=(VOICE,)), seq=1),
    sent.entry(sent.labels(3, 3, 0, centroids=(VOICE, OTHER)), seq=2),
    sent.entry(sent.labels(2, 2, 1), seq=3),
    sent.entry(sent.labels(4, 2, 3), seq=0, generation=1),
]
FINAL = [1, 2, 2, 1, 2, 3]


@pytest.mark.parametrize("seed", range(12))
def test_any_order_and_repetition_gives_the_latest_labels(
    connection: Connection, seed: int
) -> None:
    order = random.Random(seed)
    entries = [*RECORDS, *order.choices(RECORDS, k=4)]
    order.shuffle(entries)
    while entries:
        size = order.randint(1, len(entries))
        write(connection, entries[:size])
        entries = entries[size:]
    assert labels(connection) == FINAL


def test_in_one_batch_the_latest_record_counts(connection: Connection) -> None:
    for number, order in enumerate(itertools.permutations(RECORDS)):
        if number % 40 == 0:
            session_id = f"s{number}"
            entries = [
                sent.entry(e.body, session_id, e.key.seq, generation=e.generation) for e in order
            ]
            write(connection, entries)
            assert labels(connection, session_id) == FINAL


def test_another_generations_labels_are_not_replaced_by_late_ones(connection: Connection) -> None:
    write(connection, [sent.entry(sent.started()), sent.entry(sent.labels(0, 1), seq=7)])
    write(connection, [sent.entry(sent.resumed(), seq=9, generation=1)])
    write(connection, [sent.entry(sent.labels(0, 2), seq=1, generation=1)])
    late = sent.entry(sent.labels(0, 3), seq=8)
    assert write(connection, [late]) == [late]
    assert labels(connection) == [2]


def ended(seq: int, generation: int = 0, **changes: Any) -> Entry:
    return sent.entry(sent.finished(**changes), seq=seq, generation=generation)


@pytest.mark.parametrize("status", ["completed", "failed", "abandoned"])
def test_voice_prints_are_erased_at_the_end_and_not_stored_after_it(
    connection: Connection, status: str
) -> None:
    record = sent.entry(sent.labels(0, 1, centroids=(VOICE,)), seq=1)
    write(connection, [sent.entry(sent.started()), record])
    assert voices(connection) == 1
    write(connection, [ended(2, status=status)])
    assert voices(connection) == 0
    write(connection, [record])
    write(connection, [record, ended(2, status=status)])
    assert voices(connection) == 0
    assert labels(connection) == [1]


def test_voice_prints_of_an_interrupted_session_wait_for_its_client(
    connection: Connection,
) -> None:
    record = sent.entry(sent.labels(0, 1, centroids=(VOICE,)), seq=1)
    write(connection, [sent.entry(sent.started()), record, ended(2, status="interrupted")])
    connection.execute("UPDATE asr_sessions SET completed_at = now() - interval '59 minutes'")
    assert erase_old(connection, HOUR_S) == 0
    connection.execute("UPDATE asr_sessions SET completed_at = now() - interval '61 minutes'")
    assert erase_old(connection, HOUR_S) == 1
    assert voices(connection) == 0


def test_voice_prints_of_a_lost_session_are_erased(connection: Connection) -> None:
    record = sent.entry(sent.labels(0, 1, centroids=(VOICE,)), seq=1)
    write(connection, [sent.entry(sent.started()), record])
    assert erase_old(connection, HOUR_S) == 0
    connection.execute("UPDATE asr_sessions SET status = 'lost'")
    assert erase_old(connection, HOUR_S) == 1


def test_deletion_deletes_labels_and_voice_prints(connection: Connection) -> None:
    write(connection, RECORDS)
    write(connection, [sent.entry(sent.deleted(), seq=99)])
    write(connection, RECORDS)
    assert labels(connection) == [] and voices(connection) == 0


def test_labels_of_segments_that_a_resumed_session_does_not_have_are_deleted(
    connection: Connection,
) -> None:
    write(connection, [sent.entry(sent.started()), sent.entry(sent.labels(0, 1, 2, 3), seq=1)])
    write(connection, [sent.entry(sent.resumed(), seq=9, generation=1)])
    write(connection, [sent.entry(sent.labels(1, 1), seq=1, generation=1)])
    write(connection, [ended(2, 1, segment_count=2)])
    assert labels(connection) == [1, 1]


async def test_labels_and_centroids_are_read(connection: Connection, database: str) -> None:
    segments = [sent.entry(sent.segment(index), seq=10 + index) for index in range(6)]
    write(connection, [*RECORDS, *segments])
    reader = SessionReader(database)
    await reader.open()
    try:
        session = await reader.session("s", DEFAULT_TENANT)
        state = await reader.resume_state("s", DEFAULT_TENANT)
    finally:
        await reader.close()
    assert session is not None and state is not None
    assert session["speakers"] == state["speakers"] == dict(enumerate(FINAL))
    assert state["centroids"] == sent.labels(0, centroids=(VOICE, OTHER)).centroids


async def test_a_schema_without_speakers_is_read(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection, load_migrations()[:4])
        connection.execute("INSERT INTO asr_sessions (id) VALUES ('s')")
    reader = SessionReader(database)
    await reader.open()
    try:
        state = await reader.resume_state("s", DEFAULT_TENANT)
    finally:
        await reader.close()
    assert state is not None and state["speakers"] == {} and state["centroids"] == ()
