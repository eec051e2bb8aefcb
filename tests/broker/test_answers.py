"""Whatever peers send, receivers can decode the messages that follow from it."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from broker import events as e
from broker import limits as limit
from broker.routing import Broker
from tests.broker.driving import DEFAULTS, GATEWAY, WORKER, Driver, job
from tests.broker.invariants import check_broker
from tests.wire import generated
from wire import codec, publication, validation
from wire import messages as m

SMALLEST = 5e-324


def decoded(actions: list[e.Action]) -> list[m.Message]:
    """The sent and published messages, as their receivers decode them.

    Raises:
        WireError: if they cannot.
    """
    messages: list[m.Message] = []
    for action in actions:
        if isinstance(action, e.Send):
            messages.append(codec.decode(codec.encode(action.message)))
        elif isinstance(action, e.Publish):
            messages.append(publication.decode(publication.encode(0, action.message))[1])
    return messages


def ready(identity: bytes, throughput_rtfx: float = 0.0, model: str = "demo") -> m.Ready:
    return m.Ready(
        worker_id=identity.decode(),
        credits=4,
        model=model,
        device="cpu",
        throughput_rtfx=throughput_rtfx,
    )


@given(said=st.lists(st.tuples(st.booleans(), st.booleans(), generated.messages), max_size=12))
def test_any_valid_messages(said: list[tuple[bool, bool, m.Message]]) -> None:
    broker = Broker(epoch="epoch", limits=DEFAULTS, system_id="")
    broker.handle(e.SubscriptionChanged(b"", True), 0.0)
    broker.handle(e.Received("front", GATEWAY, m.Hello(gateway_id=GATEWAY.decode())), 0.0)
    broker.handle(e.Received("back", WORKER, ready(WORKER)), 0.0)
    now_s = 0.0
    for front, registers, message in said:
        now_s += 0.5
        if registers and isinstance(message, m.Ready):
            message = structs.replace(message, worker_id=WORKER.decode())
        elif registers and isinstance(message, m.Hello):
            message = structs.replace(message, gateway_id=GATEWAY.decode())
        event = (
            e.Received("front", GATEWAY, message) if front else e.Received("back", WORKER, message)
        )
        decoded([*broker.handle(event, now_s), *broker.handle(e.Tick(), now_s)])
        check_broker(broker)


def test_a_worker_that_reports_a_factor_of_almost_zero() -> None:
    driver = Driver()
    driver.hello()
    driver.back(ready(WORKER, SMALLEST))
    driver.front(job())
    assert driver.broker.load().throughput_rtfx == limit.THROUGHPUT_MIN_RTFX
    assert driver.broker.load().est_wait_ms == round(1_000 / limit.THROUGHPUT_MIN_RTFX)


def test_many_fast_workers_with_long_names() -> None:
    driver = Driver()
    driver.hello()
    for number in range(limit.WORKERS_MAX):
        model = f"{number % limit.MODELS_MAX:04}".ljust(validation.NAME_CHARS_MAX, "界")
        identity = f"worker-{number}".encode()
        driver.back(ready(identity, validation.RATIO_MAX, model), identity)
    driver.now_s += limit.LOAD_INTERVAL_S
    (load,) = (load for load in decoded(driver.handle(e.Tick())) if isinstance(load, m.Load))
    assert load.workers == limit.WORKERS_MAX
    assert len(load.models) == len(load.served) == limit.MODELS_MAX


def largest_answer() -> m.WorkerResult:
    """An answer with the most tokens in the largest header."""
    count = codec.ITEMS_MAX
    tokens = [{"text": "", "start_ms": 0, "end_ms": 0}] * count
    header = {
        "broker_epoch": "epoch",
        "job_id": 1,
        "attempt": 1,
        "text": "",
        "error": None,
        "tokens": tokens,
        "infer_ms": 0,
        "batch_jobs": 1,
    }
    left = codec.HEADER_BYTES_MAX - len(msgpack.packb(header))
    header["tokens"] = [{**token, "text": "x" * (left // count - 1)} for token in tokens]
    header["text"] = "x" * (codec.HEADER_BYTES_MAX - len(msgpack.packb(header)) - 4)
    frames = [codec.tag_of(m.WorkerResult), msgpack.packb(header)]
    assert codec.HEADER_BYTES_MAX - 9 < len(frames[1]) <= codec.HEADER_BYTES_MAX
    answer = codec.decode(frames)
    assert isinstance(answer, m.WorkerResult)
    return answer


def test_the_largest_answer_late_in_a_session() -> None:
    driver = Driver()
    driver.hello()
    driver.ready()
    driver.front(job(100_000, session_id="界" * validation.NAME_CHARS_MAX))
    result, published = decoded(driver.back(largest_answer()))
    assert isinstance(result, m.Result) and isinstance(published, m.PublishedResult)
    assert published.result == result


@pytest.mark.parametrize("late_ms", [1, validation.INTEGER_MAX])
def test_token_times_beyond_the_segment_are_its_end(late_ms: int) -> None:
    driver = Driver()
    driver.hello()
    driver.ready()
    driver.front(job(2))
    token = m.Token(text="a", start_ms=500, end_ms=1_000 + late_ms)
    result, _ = decoded(driver.answer(1, tokens=(token,)))
    assert isinstance(result, m.Result)
    assert result.tokens == (m.Token(text="a", start_ms=20_500, end_ms=21_000),)
