"""Fields that a model adds to a segment, from the worker to the REST answer: the core of each
process, and a real database."""

from __future__ import annotations

import json

import psycopg
import pytest

from asr_worker.batching import BatchLimits
from asr_worker.job_book import JobBook
from asr_worker.recognizer.protocol import Recognition
from broker import events as e
from gateway.web.schemas import SegmentAnswer, segment_answer
from persistence.batch_buffer import BatchBuffer, Limits
from persistence.migrate import migrate
from persistence.reads import SessionReader
from persistence.store import write
from tests.broker.driving import WELCOME, Driver, job
from tests.persistence import sent
from wire import codec, publication
from wire.messages import Message, Ready, Result, WorkerJob
from wire.records import DEFAULT_TENANT

BUFFER = Limits(batch_rows_max=1, batch_wait_s=0.0, pending_rows_max=9, pending_bytes_max=9_999)
FOUND = {"language": "en", "confidence": 0.875}


def on_the_bus(message: Message) -> Message:
    return codec.decode(codec.encode(message))


def recognised(work: WorkerJob) -> Message:
    """The answer of a worker whose model found ``FOUND``."""
    limits = BatchLimits(jobs_max=1, audio_ms_max=60_000)
    book = JobBook(Ready(worker_id="worker-1", credits=0, model="m", device="cpu"), limits)
    book.introduce()
    book.receive(WELCOME)
    book.receive(on_the_bus(work))
    recognition = Recognition(text="one", language="en", confidence=0.875)
    (answer,) = book.answer(book.take_batch(), [recognition], 7)
    return on_the_bus(answer)


def broker_output() -> tuple[Result, e.Publish]:
    """The result for the gateway, and its publication."""
    driver = Driver()
    driver.hello()
    driver.ready()
    (assigned,) = [a for a in driver.front(job()) if isinstance(a, e.Send) and a.side == "back"]
    assert isinstance(assigned.message, WorkerJob)
    actions = driver.back(recognised(assigned.message))
    (sent,) = [a.message for a in actions if isinstance(a, e.Send) and a.side == "front"]
    (published,) = [a for a in actions if isinstance(a, e.Publish)]
    result = on_the_bus(sent)
    assert isinstance(result, Result)
    return result, published


async def test_fields_of_a_model_are_stored_and_shown(database: str) -> None:
    result, published = broker_output()
    buffer = BatchBuffer(BUFFER, "")
    buffer.receive(publication.encode(1, published.message), 0.0)
    batch = buffer.take_batch(0.0)
    assert batch is not None
    with psycopg.connect(database, autocommit=True) as connection:
        migrate(connection)
        start = sent.entry(sent.started(), "session")
        assert write(connection, [start, *batch]) == []
    reader = SessionReader(database)
    await reader.open()
    try:
        stored = await reader.session("session", DEFAULT_TENANT)
    finally:
        await reader.close()
    assert stored is not None
    # A live session shows the gateway's result, a stored one the row.
    for shown in (segment_answer(result), *map(segment_answer, stored["segments"])):
        assert {name: shown[name] for name in FOUND} == FOUND
        assert SegmentAnswer(**shown).model_dump(mode="json") == json.loads(json.dumps(shown))


@pytest.mark.parametrize("name", FOUND)
def test_the_description_of_rest_has_the_columns(name: str) -> None:
    assert name in SegmentAnswer.model_json_schema()["required"]
