from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from asr_worker.recognizer import (
    TRIAL_LEAST_S,
    TRIAL_S,
    FakeRecognizer,
    Recognition,
    Utterance,
    build,
    fake_text,
    trial_x,
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


def test_a_trial_tells_the_speed_of_one_utterance() -> None:
    class Slow(FakeRecognizer):
        lengths: ClassVar[list[int]] = []

        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            self.lengths.extend(pcm_duration_ms(utterance.pcm) for utterance in utterances)
            return super().recognize(utterances)

    assert 0 < trial_x(Slow("fake:20ms", 0.02)) <= TRIAL_S / 0.02
    assert Slow.lengths == [TRIAL_S * 1000] * 2
    assert trial_x(FakeRecognizer("fake:0ms", 0.0)) <= TRIAL_S / TRIAL_LEAST_S


def test_a_failing_trial_tells_nothing() -> None:
    class Broken(FakeRecognizer):
        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            raise ValueError("not this one")

    assert trial_x(Broken("fake:0ms", 0.0)) == 0
