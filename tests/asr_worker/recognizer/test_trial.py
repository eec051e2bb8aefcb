from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from asr_worker.recognizer.fake import FakeRecognizer
from asr_worker.recognizer.protocol import Recognition, Utterance
from asr_worker.recognizer.trial import (
    TRIAL_ALONE_S,
    TRIAL_JOBS,
    TRIAL_S,
    TRIAL_S_MIN,
    trial_rtfx,
)
from wire.messages import pcm_duration_ms


@pytest.mark.parametrize(
    ("batch_s", "jobs_max", "expected"),
    [(0.02, 32, TRIAL_JOBS), (0.02, 3, 3), (0.02, 1, 1), (TRIAL_ALONE_S + 0.05, 32, 1)],
)
def test_a_trial_measures_a_batch(batch_s: float, jobs_max: int, expected: int) -> None:
    class Noted(FakeRecognizer):
        batches: ClassVar[list[list[int]]] = []

        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            self.batches.append([pcm_duration_ms(utterance.pcm) for utterance in utterances])
            return super().recognize(utterances)

    Noted.batches.clear()
    measured_rtfx = trial_rtfx(Noted("fake", batch_s), jobs_max)
    assert Noted.batches[0] == [TRIAL_S * 1000]
    assert Noted.batches[-1] == [TRIAL_S * 1000] * expected
    assert 0 < measured_rtfx <= expected * TRIAL_S / batch_s


def test_the_measured_factor_is_bounded() -> None:
    assert trial_rtfx(FakeRecognizer("fake:0ms", 0.0), 1) <= TRIAL_S / TRIAL_S_MIN


def test_a_failed_trial_measures_zero() -> None:
    class Broken(FakeRecognizer):
        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            raise ValueError("not this one")

    assert trial_rtfx(Broken("fake:0ms", 0.0), 32) == 0
