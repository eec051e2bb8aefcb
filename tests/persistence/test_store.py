from __future__ import annotations

import random
from collections.abc import Iterator
from threading import Thread
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from persistence import metrics
from persistence.batch_buffer import Entry
from persistence.migrate import migrate
from persistence.store import write
from persistence.values import clean, wall_time
from tests.persistence import sent
from wire.messages import Failure
from wire.records import ChunkDetails, RecordBody

Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        migrate(opened)
        yield opened


def all_rows(connection: Connection, table: str, leave_out: str = "stored_at") -> list[str]:
    query = f"SELECT (to_jsonb(t) - '{leave_out}')::text FROM {table} t ORDER BY 1"
    return [row[0] for row in connection.execute(query)]


def value(connection: Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    return None if row is None else row[0] if len(row) == 1 else row


def write_bodies(connection: Connection, *bodies: RecordBody, session_id: str = "s") -> None:
    write(connection, [sent.entry(body, session_id) for body in bodies])


def test_a_whole_session(connection: Connection) -> None:
    write_bodies(
        connection,
        sent.started(),
        sent.chunks(0, 1),
        sent.segment(0, "one"),
        sent.segment(1, failure=Failure(code="chunk_failed", message="three times")),
        sent.finished(),
    )
    assert value(
        connection,
        "SELECT user_id, client, mode, language, status, text, duration_ms, chunk_count,"
        " segment_count, error_code FROM asr_sessions",
    ) == ("ann", "127.0.0.1", "auto", "en", "completed", "one two", 2_500, 2, 2, None)
    segments = connection.execute(
        "SELECT segment_index, text, error_code, tokens, attempt, queue_ms, infer_ms"
        " FROM asr_segments ORDER BY 1"
    ).fetchall()
    token = {"text": "one", "start_ms": 0, "end_ms": 400}
    assert segments[0] == (0, "one", None, [token], 1, 5, 20)
    assert segments[1][1:3] == (None, "chunk_failed")
    assert value(connection, "SELECT array_agg(offset_ms ORDER BY 1) FROM asr_chunks") == [0, 100]


def test_a_segment_before_its_session_creates_the_row(connection: Connection) -> None:
    write_bodies(connection, sent.segment(0))
    assert value(connection, "SELECT status, started FROM asr_sessions") == ("active", False)
    write_bodies(connection, sent.started())
    found = value(connection, "SELECT user_id, created_at, started FROM asr_sessions")
    assert found == ("ann", wall_time(sent.NOON_MS), True)


def test_a_late_start_does_not_undo_the_end(connection: Connection) -> None:
    write_bodies(connection, sent.finished())
    write_bodies(connection, sent.started())
    found = value(connection, "SELECT status, text, user_id FROM asr_sessions")
    assert found == ("completed", "one two", "ann")


def texts(connection: Connection) -> Any:
    return value(connection, "SELECT array_agg(text ORDER BY segment_index) FROM asr_segments")


def published(seq: int, text: str, generation: int = 0) -> Entry:
    return sent.entry(sent.segment(seq, text), generation=generation, kind="result")


def test_the_first_published_row_stays(connection: Connection) -> None:
    write(connection, [published(0, "first")])
    write(connection, [published(0, "second"), published(1, "third"), published(1, "fourth")])
    assert texts(connection) == ["first", "third"]


def test_a_delivered_segment_takes_precedence_over_published_results(
    connection: Connection,
) -> None:
    error = sent.segment(0, failure=Failure(code="chunk_failed", message="three times"))
    write(connection, [sent.entry(error, kind="result")])
    write(connection, [published(0, "heard"), sent.entry(sent.segment(0, "heard"))])
    write(connection, [published(0, "late")])
    assert texts(connection) == ["heard"]
    assert value(connection, "SELECT error_code FROM asr_segments") is None


# -------------------------------------------------------------------------------------- resumption


def test_a_resumed_session_belongs_to_its_new_gateway(connection: Connection) -> None:
    write_bodies(connection, sent.started(), sent.finished(status="abandoned"))
    write(connection, [published(0, "one"), published(1, "two")])
    write(connection, [sent.entry(sent.resumed(), generation=1)])
    found = value(connection, "SELECT status, completed_at, gateway_id FROM asr_sessions")
    assert found == ("active", None, "gateway-2")

    stale = [published(2, "stale"), sent.entry(sent.finished(segment_count=3))]
    assert write(connection, [*stale, sent.entry(sent.chunks(0, 1))]) == stale
    assert texts(connection) == ["one", "two"]
    assert value(connection, "SELECT status FROM asr_sessions") == "active"
    assert value(connection, "SELECT count(*) FROM asr_chunks") == 2

    write(connection, [published(1, "zwei", generation=1), published(2, "drei", generation=1)])
    write(connection, [sent.entry(sent.finished(segment_count=3), generation=1)])
    assert texts(connection) == ["one", "zwei", "drei"]
    assert value(connection, "SELECT status FROM asr_sessions") == "completed"


def test_an_end_contains_the_start(connection: Connection) -> None:
    """Otherwise a session of which only the end is stored would restart and lose its text."""
    write(connection, [sent.entry(sent.finished(started=sent.started())), published(0, "one")])
    found = value(connection, "SELECT started, user_id, resume_token_hash FROM asr_sessions")
    assert found == (True, "ann", "hash")
    write(connection, [sent.entry(sent.finished(segment_count=1, started=sent.started()))])
    write(connection, [sent.entry(sent.resumed(), generation=1)])
    assert value(connection, "SELECT status FROM asr_sessions") == "active"  # A segment is missing.


def test_the_end_removes_segments_of_older_generations(connection: Connection) -> None:
    write(connection, [sent.entry(sent.started()), published(0, "one"), published(5, "leftover")])
    write(connection, [sent.entry(sent.resumed(), generation=1)])
    write(connection, [sent.entry(sent.finished(segment_count=1), generation=1)])
    assert texts(connection) == ["one"]


def test_a_restarted_session_is_not_completed_by_older_rows(
    connection: Connection,
) -> None:
    write(connection, [published(0, "one"), sent.entry(sent.resumed(), generation=1)])
    ending = sent.entry(sent.finished(segment_count=2, started=sent.started()), generation=1)
    write(connection, [published(1, "zwei", generation=1), ending])
    assert texts(connection) == ["zwei"]
    write(connection, [sent.entry(sent.resumed(), generation=2)])
    assert value(connection, "SELECT status FROM asr_sessions") == "active"  # A segment is missing.


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_complete_session_is_not_taken_over(connection: Connection, status: Any) -> None:
    write_bodies(connection, sent.started(), sent.finished(status=status, segment_count=0))
    write(connection, [sent.entry(sent.resumed(), generation=1)])
    assert value(connection, "SELECT status, generation FROM asr_sessions") == (status, 0)
    write(connection, [published(0, "late but its own")])
    assert texts(connection) == ["late but its own"]


@pytest.mark.parametrize(("stored", "status"), [(1, "active"), (2, "completed")])
def test_an_end_without_all_its_segments_is_taken_over(
    connection: Connection, stored: int, status: str
) -> None:
    write(connection, [published(seq, "word") for seq in range(stored)])
    write_bodies(connection, sent.started(), sent.finished(segment_count=2))
    write(connection, [sent.entry(sent.resumed(), generation=1)])
    assert value(connection, "SELECT status FROM asr_sessions") == status


def test_an_end_without_its_start_is_taken_over(connection: Connection) -> None:
    """Without a resume token to compare, the session restarts; its client got no ``stored``."""
    write_bodies(connection, sent.finished(segment_count=0))
    write(connection, [sent.entry(sent.resumed("g", "any"), generation=1)])
    found = value(connection, "SELECT status, generation FROM asr_sessions")
    assert found == ("active", 1)


def test_a_generation_is_claimed_once_and_with_the_right_token_only(
    connection: Connection,
) -> None:
    write_bodies(connection, sent.started())
    write(connection, [sent.entry(sent.resumed("thief", "guess"), generation=1)])
    assert value(connection, "SELECT generation FROM asr_sessions") == 0
    write(connection, [sent.entry(sent.resumed("first"), generation=1)])
    write(connection, [sent.entry(sent.resumed("second"), generation=1)])
    assert value(connection, "SELECT generation, gateway_id FROM asr_sessions") == (1, "first")


def test_a_session_without_its_start_is_restarted(connection: Connection) -> None:
    write(connection, [published(0, "unclaimed")])
    write(connection, [sent.entry(sent.resumed("g", "other"), generation=1)])
    write(connection, [sent.entry(sent.started(resume_token_hash="new"), generation=1)])
    write_bodies(connection, sent.started())
    found = value(connection, "SELECT generation, resume_token_hash FROM asr_sessions")
    assert found == (1, "new")
    write(connection, [published(0, "anew", generation=1)])
    assert texts(connection) == ["anew"]


def test_an_abandoned_session_may_still_be_completed_but_not_the_reverse(
    connection: Connection,
) -> None:
    abandoned = sent.finished(status="abandoned", text="half", completed_at_ms=sent.NOON_MS + 9)
    write_bodies(connection, abandoned)
    write_bodies(connection, sent.finished(completed_at_ms=sent.NOON_MS + 5))
    write_bodies(connection, abandoned)
    assert value(connection, "SELECT status, text FROM asr_sessions") == ("completed", "one two")


def test_a_deletion_removes_all_rows_and_later_ones_are_dropped(connection: Connection) -> None:
    everything = (sent.started(), sent.chunks(0, 1), sent.segment(0), sent.finished())
    write_bodies(connection, *everything)
    write_bodies(connection, sent.started(), session_id="other")
    write_bodies(connection, sent.deleted())
    before = metrics.LATE_ROWS.labels("ChunkDetails")._value.get()
    write_bodies(connection, *everything)
    assert metrics.LATE_ROWS.labels("ChunkDetails")._value.get() == before + 2
    left = all_rows(connection, "asr_segments") + all_rows(connection, "asr_chunks")
    assert left == []
    found = value(
        connection,
        "SELECT status, text, user_id, client, completed_at, duration_ms, deleted_at IS NULL"
        " FROM asr_sessions WHERE id = 's'",
    )
    assert found == ("deleted", None, "", "", None, None, False)
    other = value(connection, "SELECT status FROM asr_sessions WHERE id = 'other'")
    assert other == "active"


def test_an_unknown_session_can_be_deleted(connection: Connection) -> None:
    write_bodies(connection, sent.deleted())
    write_bodies(connection, sent.segment(0))
    assert value(connection, "SELECT status FROM asr_sessions") == "deleted"
    assert all_rows(connection, "asr_segments") == []


HISTORIES: dict[str, list[RecordBody]] = {
    "plain": [
        sent.started(),
        sent.chunks(0, 1),
        sent.chunks(2),
        sent.segment(0, "a"),
        sent.segment(1, "b"),
        sent.finished(),
    ],
    "resumed on another gateway": [
        sent.started(),
        sent.started(client="10.0.0.2", started_at_ms=sent.NOON_MS + 5_000),
        sent.chunks(0),
        sent.chunks(0, 1),
        sent.segment(0, "a"),
        sent.finished(
            status="failed",
            text="",
            failure=Failure(code="gone", message="?"),
            completed_at_ms=sent.NOON_MS + 90_000,
        ),
        sent.finished(status="abandoned", text="a", completed_at_ms=sent.NOON_MS + 95_000),
        sent.finished(),
    ],
    "deleted": [sent.started(), sent.chunks(0), sent.segment(0), sent.deleted(), sent.finished()],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_order_repetition_and_batching_do_not_change_the_rows(
    connection: Connection, name: str
) -> None:
    """Each shuffled, repeated and split history ends in the same state as the original."""
    rng = random.Random(name)
    for number in range(25):
        bodies = list(HISTORIES[name])
        if number:
            bodies += rng.choices(bodies, k=rng.randrange(4))
            rng.shuffle(bodies)
        while bodies:
            size = rng.randrange(1, len(bodies) + 1)
            write_bodies(connection, *bodies[:size], session_id=f"s{number:02}")
            del bodies[:size]
    for table in ("asr_sessions", "asr_segments", "asr_chunks"):
        session = "id" if table == "asr_sessions" else "session_id"
        columns = f"to_jsonb(t) - '{session}' - 'stored_at'"
        if name == "deleted":
            columns += " - 'created_at'"  # a tombstone's is that of whatever came first
        states = connection.execute(
            f"SELECT DISTINCT array_agg(({columns})::text ORDER BY ({columns})::text)"
            f" FROM {table} t GROUP BY {session}"
        ).fetchall()
        assert len(states) == (0 if name == "deleted" and table != "asr_sessions" else 1), table


def test_a_deletion_waits_for_another_writers_batch_and_removes_its_rows(
    database: str, connection: Connection
) -> None:
    with psycopg.connect(database) as slow, psycopg.connect(database, autocommit=True) as deleting:
        thread = Thread(target=write_bodies, args=(deleting, sent.deleted()))
        waits = f"SELECT 1 FROM pg_locks WHERE pid = {deleting.info.backend_pid} AND NOT granted"
        with slow.transaction():
            write_bodies(slow, sent.segment(0))
            thread.start()
            while connection.execute(waits).fetchone() is None:
                assert thread.is_alive()
        thread.join()
    assert all_rows(connection, "asr_segments") == []
    assert value(connection, "SELECT status FROM asr_sessions") == "deleted"


@pytest.mark.parametrize(
    ("dirty", "stored"),
    [("a\0b", "a\ufffdb"), ("a\ud800b", "a\ufffdb"), ("😀", "😀"), ("\0", "\ufffd")],
)
def test_unstorable_characters_are_replaced(
    connection: Connection, dirty: str, stored: str
) -> None:
    assert clean(dirty) == stored
    before = metrics.TEXTS_CLEANED._value.get()
    failure = Failure(code="c" + dirty, message=dirty)
    write_bodies(
        connection,
        sent.started(user_id=dirty, client=dirty),
        sent.segment(0, dirty),
        sent.segment(1, failure=failure),
        sent.finished(text=dirty, failure=failure),
    )
    assert (metrics.TEXTS_CLEANED._value.get() > before) == (dirty != stored)
    found = value(connection, "SELECT text, tokens->0->>'text' FROM asr_segments ORDER BY 1")
    assert found == (stored, stored)


def test_the_largest_integers_of_messages_are_stored(connection: Connection) -> None:
    largest = (1 << 53) - 1
    write_bodies(
        connection,
        sent.started(started_at_ms=largest),
        sent.segment(largest),
        sent.finished(duration_ms=largest, chunk_count=largest, completed_at_ms=largest),
    )
    assert value(connection, "SELECT segment_index FROM asr_segments") == largest
    assert value(connection, "SELECT extract(year FROM completed_at) FROM asr_sessions") == 9999


@pytest.mark.parametrize("received_at_ms", [0, 1, 1_790_000_000_123, (1 << 53) - 1])
def test_chunks_keep_their_times_to_the_millisecond(
    connection: Connection, received_at_ms: int
) -> None:
    (chunk,) = sent.chunks(0).chunks
    details = ChunkDetails(chunks=(replace(chunk, received_at_ms=received_at_ms),))
    write_bodies(connection, details, ChunkDetails(chunks=()))
    stored = value(connection, "SELECT received_at FROM asr_chunks")
    assert stored == wall_time(received_at_ms)


def test_an_invalid_row_does_not_affect_its_batch_or_session(connection: Connection) -> None:
    connection.execute("ALTER TABLE asr_segments ADD CHECK (text <> 'poison')")
    before = metrics.REJECTED_ROWS.labels("SegmentCopy")._value.get()
    entries = [sent.entry(sent.segment(seq, f"good {seq}"), f"s{seq}") for seq in range(5)]
    entries.insert(2, sent.entry(sent.segment(9, "poison"), "s3"))
    write(connection, entries)
    assert metrics.REJECTED_ROWS.labels("SegmentCopy")._value.get() == before + 1
    assert value(connection, "SELECT count(*) FROM asr_segments") == 5
    marked = connection.execute(
        "SELECT id, error_message FROM asr_sessions WHERE error_code = 'unstorable'"
    ).fetchall()
    assert marked == [("s3", "SegmentCopy refused by the database: 23514")]
    write_bodies(connection, sent.finished(), session_id="s3")
    kept = "SELECT status, error_code FROM asr_sessions WHERE id = 's3'"
    assert value(connection, kept) == ("completed", "unstorable")


def test_an_incompatible_database_raises_and_gets_no_rows(connection: Connection) -> None:
    connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        write_bodies(connection, sent.started())
    connection.execute("SET default_transaction_read_only = off")
    connection.execute("ALTER TABLE asr_chunks RENAME TO elsewhere")
    with pytest.raises(psycopg.errors.UndefinedTable):
        write_bodies(connection, sent.started(), sent.chunks(0))
    assert all_rows(connection, "asr_sessions") == []
