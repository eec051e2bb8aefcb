"""Utterances of one length, in batches, timed by a given clock."""

from __future__ import annotations

import itertools

import pytest

from asr_worker.recognizer.fake import FakeRecognizer
from tools.lab.bench.worker import UTTERANCE_S, in_batches, real_time_rtfx, utterances


def test_all_utterances_have_the_same_length() -> None:
    made = utterances(5)
    assert {len(utterance.pcm) for utterance in made} == {UTTERANCE_S * 32_000}
    assert len({utterance.pcm for utterance in made}) == 5


def test_batches_hold_every_utterance() -> None:
    made = utterances(5)
    assert [len(batch) for batch in in_batches(made, 2)] == [2, 2, 1]


def test_seconds_of_audio_for_a_second_of_the_clock() -> None:
    clock = itertools.count(step=10).__next__
    batches = in_batches(utterances(3), 2)
    rtfx = real_time_rtfx(FakeRecognizer("fake:0ms"), batches, clock)
    assert rtfx == pytest.approx(3 * UTTERANCE_S / 10)
