from __future__ import annotations

import select
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from asr_worker.inference import FinishedBatch, InferenceLoop
from asr_worker.recognizer.protocol import (
    RECOGNITION_FAILED,
    Recognition,
    Recognizer,
    Utterance,
)
from tests.asr_worker.broker_side import PATIENCE_S, worker_job
from wire.messages import Abilities


class Scripted:
    """A recogniser that returns what ``script`` returns."""

    model, device, abilities = "scripted", "cpu", Abilities()

    def __init__(self, script: Callable[[Sequence[Utterance]], list[Recognition]]) -> None:
        self.recognize = script


def wait_until_woken(loop: InferenceLoop) -> None:
    readable, _, _ = select.select([loop.wake_fd], [], [], PATIENCE_S)
    assert readable, "never woken"
    loop.clear_wake()


def finished_batch(loop: InferenceLoop) -> FinishedBatch:
    wait_until_woken(loop)
    batch = loop.finished()
    assert batch is not None
    return batch


def loaded(script: Callable[[Sequence[Utterance]], list[Recognition]]) -> InferenceLoop:
    loop = InferenceLoop(lambda: Scripted(script))
    wait_until_woken(loop)
    assert loop.recognizer is not None
    return loop


def test_a_finished_batch_has_its_recognitions() -> None:
    loop = loaded(lambda batch: [Recognition(text=str(len(each.pcm))) for each in batch])
    jobs = [worker_job(1, b"12"), worker_job(2, b"1234")]
    loop.submit(jobs, now_s=0.0)
    batch = finished_batch(loop)
    assert batch.jobs == jobs
    assert [recognition.text for recognition in batch.recognitions] == ["2", "4"]
    assert not loop.busy
    assert loop.finished() is None
    loop.close()


def test_utterances_have_the_wishes_of_their_jobs() -> None:
    heard: list[Utterance] = []

    def script(batch: Sequence[Utterance]) -> list[Recognition]:
        heard.extend(batch)
        return [Recognition(text="")] * len(batch)

    loop = loaded(script)
    wishes: dict[str, Any] = {
        "language": "zh",
        "hotwords": ("a",),
        "punctuation": False,
        "itn": True,
    }
    job = replace(worker_job(1, b"12"), **wishes, context="before", session_id="s", seq=3)
    loop.submit([job], now_s=0.0)
    finished_batch(loop)
    assert heard == [Utterance(pcm=b"12", **wishes, context="before", stream=("s", 3))]
    loop.close()


def test_busy_lasts_from_submission_until_the_batch_is_fetched() -> None:
    gate = threading.Event()

    def wait(batch: Sequence[Utterance]) -> list[Recognition]:
        gate.wait(PATIENCE_S)
        return [Recognition(text="")] * len(batch)

    loop = loaded(wait)
    assert loop.busy_s(now_s=100.0) == 0.0
    loop.submit([worker_job(1, b"")], now_s=100.0)
    assert loop.busy_s(now_s=103.0) == 3.0
    gate.set()
    finished_batch(loop)
    assert loop.busy_s(now_s=105.0) == 0.0
    loop.close()


def raising(_batch: Sequence[Utterance]) -> list[Recognition]:
    raise RuntimeError("asked for")


@pytest.mark.parametrize("script", [raising, lambda _batch: []])
def test_a_recogniser_that_breaks_its_protocol_fails_the_batch(
    script: Callable[[Sequence[Utterance]], list[Recognition]],
) -> None:
    loop = loaded(script)
    loop.submit([worker_job(1, b""), worker_job(2, b"")], now_s=0.0)
    for recognition in finished_batch(loop).recognitions:
        assert recognition.failure is not None
        assert recognition.failure.code == RECOGNITION_FAILED
    assert loop.alive
    loop.close()


def test_a_load_error_is_kept() -> None:
    def build() -> Recognizer:
        raise OSError("no such model")

    loop = InferenceLoop(build)
    wait_until_woken(loop)
    assert isinstance(loop.load_error, OSError)
    assert loop.recognizer is None
