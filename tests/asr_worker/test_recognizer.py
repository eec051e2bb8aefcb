from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from asr_worker.recognizer import (
    TRIAL_ALONE_S,
    TRIAL_JOBS,
    TRIAL_LEAST_S,
    TRIAL_S,
    FakeRecognizer,
    Recognition,
    Utterance,
    build,
    fake_text,
    trial_rtfx,
)
from asr_worker.settings import WorkerSettings
from wire.messages import pcm_duration_ms


def test_the_fake_answers_with_a_hash_of_each_audio() -> None:
    recognizer = build(WorkerSettings(asr_model="fake:0ms"))
    first, second = recognizer.recognize([Utterance(pcm=b"\0\0"), Utterance(pcm=b"\1\0")])
    assert first.text == fake_text(b"\0\0")
    assert second.text == fake_text(b"\1\0")
    assert first.text != second.text
    assert recognizer.model == "fake:0ms"


@pytest.mark.parametrize(
    ("batch_s", "jobs_max", "expected"),
    [(0.02, 32, TRIAL_JOBS), (0.02, 3, 3), (0.02, 1, 1), (TRIAL_ALONE_S + 0.05, 32, 1)],
)
def test_a_trial_tells_the_speed_of_a_batch(batch_s: float, jobs_max: int, expected: int) -> None:
    class Noted(FakeRecognizer):
        batches: ClassVar[list[list[int]]] = []

        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            self.batches.append([pcm_duration_ms(utterance.pcm) for utterance in utterances])
            return super().recognize(utterances)

    Noted.batches.clear()
    told_audio_rate = trial_rtfx(Noted("fake", batch_s), jobs_max)
    assert Noted.batches[0] == [TRIAL_S * 1000]
    assert Noted.batches[-1] == [TRIAL_S * 1000] * expected
    assert 0 < told_audio_rate <= expected * TRIAL_S / batch_s


def test_a_trial_that_takes_no_time_is_not_believed() -> None:
    assert trial_rtfx(FakeRecognizer("fake:0ms", 0.0), 1) <= TRIAL_S / TRIAL_LEAST_S


def test_a_failing_trial_tells_nothing() -> None:
    class Broken(FakeRecognizer):
        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            raise ValueError("not this one")

    assert trial_rtfx(Broken("fake:0ms", 0.0), 32) == 0
