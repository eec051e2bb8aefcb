from __future__ import annotations

import pytest

from broker import limits as limit
from broker.throughput import Throughput
from wire.messages import Abilities, Cost, Ready
from wire.validation import RATIO_MAX

UTTERANCE_MS = 3_000.0


def ready(cost: Cost | None = None, batch_jobs: int = 1, throughput_rtfx: float = 0.0) -> Ready:
    return Ready(
        worker_id="a",
        credits=2,
        model="demo",
        device="cpu",
        throughput_rtfx=throughput_rtfx,
        cost=cost or Cost(),
        abilities=Abilities(batch_jobs=batch_jobs),
    )


def test_without_a_cost_the_reported_factor_counts() -> None:
    assert Throughput(ready(throughput_rtfx=250.0)).rtfx(UTTERANCE_MS) == pytest.approx(250)
    unmeasured = Throughput(ready())
    assert unmeasured.rtfx(UTTERANCE_MS) == pytest.approx(limit.THROUGHPUT_INITIAL_RTFX)


def test_a_model_with_a_cost_for_each_utterance_is_slow_for_short_ones() -> None:
    throughput = Throughput(ready(Cost(utterance_s=1.5)))
    assert throughput.rtfx(6_000) == pytest.approx(4)
    assert throughput.rtfx(1_500) == pytest.approx(1)
    assert throughput.work_s(10, 20_000) == pytest.approx(15)


def test_jobs_share_the_cost_of_a_batch() -> None:
    throughput = Throughput(ready(Cost(batch_s=0.4, second_s=0.1), batch_jobs=8))
    padded_s = 0.1 * (1 + limit.BATCH_PADDING * 7 / 8)
    assert throughput.alone_s(1_000) == pytest.approx(0.5)
    assert throughput.work_s(1, 1_000) == pytest.approx(0.05 + padded_s)
    assert throughput.work_s(16, 16_000) == pytest.approx(16 * (0.05 + padded_s))


@pytest.mark.parametrize("jobs", [1, 8])
def test_results_correct_the_cost_whatever_the_size_of_the_batches(jobs: int) -> None:
    """The worker takes twice as long as it reported."""
    throughput = Throughput(ready(Cost(batch_s=0.4, utterance_s=0.01, second_s=0.1), batch_jobs=8))
    before = throughput.rtfx(UTTERANCE_MS)
    for _ in range(400):
        padding = limit.BATCH_PADDING * (1 - 1 / jobs)
        throughput.add(2_000, jobs, 2 * (0.4 + jobs * (0.01 + 0.2 * (1 + padding))))
        for _ in range(jobs - 1):
            throughput.add(2_000, jobs, 0.0)
    assert throughput.slowness == pytest.approx(2, rel=0.05)
    assert throughput.rtfx(UTTERANCE_MS) == pytest.approx(before / 2, rel=0.05)


def test_a_batch_counts_as_one() -> None:
    """The results of ten utterances of 3 s arrive together after 0.5 s."""
    throughput = Throughput(ready())
    for _ in range(200):
        throughput.add(3_000, 10, 0.5)
        for _ in range(9):
            throughput.add(3_000, 10, 0.0)
    assert throughput.rtfx(UTTERANCE_MS) == pytest.approx(60, rel=0.3)


@pytest.mark.parametrize(
    "cost",
    [Cost(batch_s=RATIO_MAX), Cost(utterance_s=RATIO_MAX), Cost(second_s=RATIO_MAX)],
)
def test_a_reported_cost_is_bounded(cost: Cost) -> None:
    throughput = Throughput(ready(cost))
    assert throughput.alone_s(1_000) <= limit.COST_S_MAX
    assert throughput.rtfx(UTTERANCE_MS) >= limit.THROUGHPUT_MIN_RTFX


def test_a_worker_that_reports_next_to_no_cost_is_not_infinitely_fast() -> None:
    throughput = Throughput(ready(Cost(utterance_s=5e-324)))
    throughput.add(1_000, 1, 0.0)
    assert throughput.rtfx(UTTERANCE_MS) == RATIO_MAX
    throughput.add(1_000, 1, 1e9)
    assert throughput.rtfx(UTTERANCE_MS) >= limit.THROUGHPUT_MIN_RTFX
