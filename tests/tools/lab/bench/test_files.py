"""The bare loop, beside a pipeline that answers at once."""

from __future__ import annotations

from typing import Any, cast

from asr_worker.recognizer.fake import FakeRecognizer
from asr_worker.recognizer.protocol import Utterance
from tools.lab.bench.files import IN_FLIGHT_MAX, bare_rtfx, pipeline_rtfx
from tools.lab.bench.peers import Gateway
from wire.messages import Job, Result

SPOKEN = [Utterance(pcm=bytes(64))] * (IN_FLIGHT_MAX + 10)


class Answering:
    """A pipeline that answers every job with the next look."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.waiting_max = 0
        self._answered = 0

    def send(self, job: Job) -> None:
        self.jobs.append(job)
        self.waiting_max = max(self.waiting_max, len(self.jobs) - self._answered)

    def results(self) -> list[Any]:
        waiting = len(self.jobs) - self._answered
        self._answered = len(self.jobs)
        return [cast(Result, type("Right", (), {"error": None}))] * waiting


def test_every_utterance_is_sent_once_and_few_at_a_time() -> None:
    pipeline = Answering()
    assert pipeline_rtfx(cast(Gateway, pipeline), SPOKEN, 1_000) > 0
    assert len({(job.session_id, job.seq) for job in pipeline.jobs}) == len(SPOKEN)
    assert pipeline.waiting_max == IN_FLIGHT_MAX


def test_the_bare_loop_recognises_all_of_it() -> None:
    assert bare_rtfx(FakeRecognizer("fake:0ms"), SPOKEN) > 0
