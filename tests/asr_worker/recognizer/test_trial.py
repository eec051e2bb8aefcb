"""The trial, with recognisers that take the time of a clock of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from asr_worker.recognizer.protocol import (
    RECOGNITION_FAILED,
    ModelLoadError,
    Recognition,
    Utterance,
)
from asr_worker.recognizer.trial import BATCH_S_MAX, TRIAL_S, TRIAL_S_MIN, Trial, measure
from wire.messages import Abilities, Failure, pcm_duration_ms

Duration = Callable[[int, float], float]
"""Seconds that a batch takes, by its size and the duration of each utterance."""
FAILED = Recognition(text=None, failure=Failure(code=RECOGNITION_FAILED, message="no decoder"))


class Timed:
    """A recogniser without a model, whose batches take what ``cost`` says."""

    model, device = "timed", "none"

    def __init__(self, cost: Duration, batch_jobs: int = 512) -> None:
        self.abilities = Abilities(batch_jobs=batch_jobs)
        self.sizes: list[int] = []
        self.now_s = 0.0
        self._cost = cost

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        self.sizes.append(len(utterances))
        self.now_s += self._cost(len(utterances), pcm_duration_ms(utterances[0].pcm) / 1000)
        return [Recognition(text="")] * len(utterances)


def measured(
    monkeypatch: pytest.MonkeyPatch, cost: Duration, jobs_max: int = 32, batch_jobs: int = 512
) -> tuple[Trial, Timed]:
    recognizer = Timed(cost, batch_jobs)
    monkeypatch.setattr(time, "monotonic", lambda: recognizer.now_s)
    return measure(recognizer, jobs_max, 64_000), recognizer


@pytest.mark.parametrize("batch_jobs", [1, 32])
def test_the_cost_of_an_utterance_is_separated_from_that_of_a_second(
    monkeypatch: pytest.MonkeyPatch, batch_jobs: int
) -> None:
    def duration_s(jobs: int, audio_s: float) -> float:
        return jobs * (0.02 + 0.01 * audio_s)

    found, _ = measured(monkeypatch, duration_s, batch_jobs=batch_jobs)
    assert found.limits.cost.batch_s == pytest.approx(0.0, abs=1e-9)
    assert found.limits.cost.utterance_s == pytest.approx(0.02)
    assert found.limits.cost.second_s == pytest.approx(0.01)
    assert found.throughput_rtfx == pytest.approx(TRIAL_S / 0.04)


@pytest.mark.parametrize(
    "duration_s",
    [
        lambda jobs, audio_s: 0.05 + jobs * (0.02 + 0.01 * audio_s),
        lambda jobs, audio_s: (0.1 + 0.05 * audio_s) * (1 + jobs / 8),
    ],
)
def test_the_cost_explains_an_utterance_alone_and_the_best_batch(
    monkeypatch: pytest.MonkeyPatch, duration_s: Duration
) -> None:
    found, _ = measured(monkeypatch, duration_s)
    assert found.limits.jobs_max == 32
    batch_s = duration_s(32, TRIAL_S)
    assert found.throughput_rtfx == pytest.approx(32 * TRIAL_S / batch_s)
    assert found.limits.cost.expected_s(32, round(32_000 * TRIAL_S)) == pytest.approx(batch_s)
    assert found.limits.cost.expected_s(1, round(1_000 * TRIAL_S)) == pytest.approx(
        duration_s(1, TRIAL_S)
    )


def test_a_batch_of_constant_duration_costs_nothing_for_its_utterances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, _ = measured(monkeypatch, lambda *_: 0.02)
    assert found.limits.cost.batch_s == pytest.approx(0.02)
    assert found.limits.cost.expected_s(500, 1_000_000) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("jobs_max", "batch_jobs", "expected"),
    [(32, 512, 32), (200, 512, 128), (3, 512, 3), (1, 512, 1), (32, 1, 1), (32, 8, 8)],
)
def test_batches_keep_to_the_limits_of_the_settings_and_the_model(
    monkeypatch: pytest.MonkeyPatch, jobs_max: int, batch_jobs: int, expected: int
) -> None:
    found, recognizer = measured(monkeypatch, lambda *_: 0.02, jobs_max, batch_jobs)
    assert found.limits.jobs_max == max(recognizer.sizes) == expected


def test_a_size_that_is_clearly_slower_ends_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    each_s = {1: 0.10, 2: 0.09, 8: 0.06, 32: 0.08}
    found, recognizer = measured(monkeypatch, lambda jobs, _: jobs * each_s[jobs], jobs_max=200)
    assert found.limits.jobs_max == 8
    assert max(recognizer.sizes) == 32


def test_a_slow_model_is_not_tried_with_long_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    found, recognizer = measured(monkeypatch, lambda jobs, _: 0.4 * BATCH_S_MAX * jobs)
    assert found.limits.jobs_max == 1
    assert recognizer.sizes == [1, 1, 1, 2]


def test_other_programs_on_the_cpu_do_not_change_the_best_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They take the CPU while batches of eight are tried."""
    recognizer = Timed(lambda jobs, _: 0.02 + 0.01 * jobs + (1.0 if jobs == 8 else 0.0))
    monkeypatch.setattr(time, "monotonic", lambda: recognizer.now_s)
    monkeypatch.setattr(
        time, "process_time", lambda: sum(0.02 + 0.01 * jobs for jobs in recognizer.sizes)
    )
    assert measure(recognizer, 32, 64_000).limits.jobs_max == 2
    recognizer.device = "cpu"
    assert measure(recognizer, 32, 64_000).limits.jobs_max == 32


def test_the_measured_factor_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = measured(monkeypatch, lambda *_: 0.0, jobs_max=1)
    assert found.throughput_rtfx == TRIAL_S / TRIAL_S_MIN


def test_a_model_that_fails_alone_is_a_final_load_error_of_one_line() -> None:
    class Raising(Timed):
        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            raise ValueError("no encoder\nand more")

    class Failing(Timed):
        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            return [FAILED] * len(utterances)

    for recognizer, reason in ((Raising, "no encoder"), (Failing, "no decoder")):
        with pytest.raises(ModelLoadError, match=f"'timed' can't recognise speech: {reason}$") as e:
            measure(recognizer(lambda *_: 0.0), 32, 64_000)
        assert e.value.final


def test_a_batch_size_that_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Limited(Timed):
        def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
            found = super().recognize(utterances)
            return found if len(utterances) < 32 else [FAILED] * len(utterances)

    recognizer = Limited(lambda *_: 0.02)
    monkeypatch.setattr(time, "monotonic", lambda: recognizer.now_s)
    assert measure(recognizer, 200, 64_000).limits.jobs_max == 8


@pytest.mark.parametrize(
    ("chunk_s", "jobs_max", "expected"),
    [(0.05, 32, 10), (0.001, 32, 32), (0.9, 32, 1), (0.05, 4, 4)],
)
def test_a_batch_of_partial_results_is_short(
    monkeypatch: pytest.MonkeyPatch, chunk_s: float, jobs_max: int, expected: int
) -> None:
    recognizer = Timed(lambda jobs, _audio_s: jobs * chunk_s, batch_jobs=1)
    recognizer.abilities = replace(recognizer.abilities, streaming=True)
    monkeypatch.setattr(time, "monotonic", lambda: recognizer.now_s)
    assert measure(recognizer, jobs_max, 64_000).limits.streamed_jobs_max == expected


def test_a_model_that_does_not_stream_has_no_such_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = measured(monkeypatch, lambda jobs, _audio_s: jobs * 0.01)
    assert found.limits.streamed_jobs_max == 0
