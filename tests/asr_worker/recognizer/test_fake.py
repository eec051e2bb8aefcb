from __future__ import annotations

import time

import pytest

from asr_worker.recognizer.fake import FakeRecognizer, fake_text
from asr_worker.recognizer.protocol import BATCH_JOBS_MAX, Utterance


def test_a_text_is_a_hash_of_its_audio() -> None:
    recognizer = FakeRecognizer("fake:0ms")
    first, second = recognizer.recognize([Utterance(pcm=b"\0\0"), Utterance(pcm=b"\1\0")])
    assert first.text == fake_text(b"\0\0")
    assert second.text == fake_text(b"\1\0")
    assert first.text != second.text


@pytest.mark.parametrize(
    ("model", "jobs", "expected_s"),
    [
        ("fake:50ms", BATCH_JOBS_MAX, 0.05),
        ("fake:1500ms*1", 1, 1.5),
        ("fake:50ms+10ms/s*8", 8, 0.08),
    ],
)
def test_the_name_contains_the_cost_and_the_largest_batch(
    monkeypatch: pytest.MonkeyPatch, model: str, jobs: int, expected_s: float
) -> None:
    slept_s: list[float] = []
    monkeypatch.setattr(time, "sleep", slept_s.append)
    recognizer = FakeRecognizer(model)
    recognizer.recognize([Utterance(pcm=bytes(32_000)), Utterance(pcm=bytes(64_000))])
    assert slept_s == [pytest.approx(expected_s)]
    assert recognizer.abilities.batch_jobs == jobs
