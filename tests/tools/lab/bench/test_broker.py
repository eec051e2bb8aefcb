"""Both answers of the driver, and the driver itself against libzmq's proxy."""

from __future__ import annotations

import pytest

from tools.lab.bench import broker
from tools.lab.bench.codec import JOB
from wire import codec
from wire.messages import WorkerJob, WorkerResult


def test_a_worker_answers_its_job() -> None:
    job = WorkerJob(
        broker_epoch="e", job_id=7, attempt=2, partial=False, language="", hotwords=(), pcm=JOB.pcm
    )
    result = codec.decode(broker.answer_as_worker(codec.encode(job)))
    assert isinstance(result, WorkerResult)
    assert (result.broker_epoch, result.job_id, result.attempt) == ("e", 7, 2)


def test_behind_a_proxy_the_answer_is_routed_and_as_long() -> None:
    frames = [b"identity", b"J", bytes(200)]
    assert broker.answer_as_proxied(frames) == [b"identity", b"R", bytes(200)]


def test_the_driver_gets_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "PAIRS", 500)
    assert broker.through_proxy() > 0
