from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from asr_worker.batching import (
    BATCH_S_MAX,
    MIXED_BATCH_S_MAX,
    PADDED_SHARE_MAX,
    PARTIAL_PASSES_MAX,
    REST_S_MAX,
    RESTLESS_BATCH_S,
    BatchLimits,
    BatchPacing,
    BatchQueue,
)
from wire.messages import Cost

LIMITS = BatchLimits(jobs_max=4, audio_ms_max=10_000)


def queue_of(*audio_ms: int, limits: BatchLimits = LIMITS) -> BatchQueue[int]:
    """Finals of these lengths, each with its index as key."""
    queue: BatchQueue[int] = BatchQueue(limits)
    for key, length_ms in enumerate(audio_ms):
        queue.add(key, audio_ms=length_ms, partial=False)
    return queue


def test_an_empty_queue_returns_an_empty_batch() -> None:
    assert queue_of().take_batch() == []


def test_jobs_of_equal_length_share_a_batch_up_to_the_limit() -> None:
    queue = queue_of(2_000, 2_000, 2_000, 2_000, 2_000)
    assert queue.take_batch() == [0, 1, 2, 3]
    assert queue.take_batch() == [4]
    assert len(queue) == 0


def test_padding_counts_against_the_audio_limit() -> None:
    queue = queue_of(4_000, 4_000, 4_000)
    assert queue.take_batch() == [0, 1]


def test_a_job_over_the_limit_is_a_batch_of_its_own() -> None:
    queue = queue_of(30_000, 29_000)
    assert queue.take_batch() == [0]
    assert queue.take_batch() == [1]


def test_jobs_of_different_lengths_get_different_batches() -> None:
    queue = queue_of(500, 4_000, 600, 4_200, 550)
    assert queue.take_batch() == [0, 4, 2]
    assert queue.take_batch() == [1, 3]


def test_the_oldest_job_is_the_anchor_even_if_no_other_is_similar() -> None:
    queue = queue_of(8_000, 500, 500, 500)
    assert queue.take_batch() == [0]


def test_finals_come_first_and_partials_fill_the_batch() -> None:
    queue: BatchQueue[str] = BatchQueue(LIMITS)
    queue.add("partial", audio_ms=2_000, partial=True)
    queue.add("final", audio_ms=2_000, partial=False)
    assert queue.take_batch() == ["final", "partial"]


def test_partials_join_finals_only_if_they_hardly_delay_them() -> None:
    limits = replace(LIMITS, cost=Cost(second_s=MIXED_BATCH_S_MAX / 4))
    queue: BatchQueue[str] = BatchQueue(limits)
    queue.add("short partial", audio_ms=2_000, partial=True)
    queue.add("other short partial", audio_ms=2_000, partial=True)
    queue.add("short final", audio_ms=2_000, partial=False)
    assert queue.take_batch() == ["short final", "short partial"]
    assert queue.take_batch() == ["other short partial"]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        # 0.4 s for each utterance, or for each second.
        (replace(LIMITS, cost=Cost(utterance_s=0.4 * BATCH_S_MAX)), [0, 1]),
        (replace(LIMITS, cost=Cost(second_s=0.4 * BATCH_S_MAX)), [0, 1]),
        (replace(LIMITS, cost=Cost(utterance_s=2 * BATCH_S_MAX)), [0]),
        (LIMITS, [0, 1, 2]),
    ],
)
def test_a_batch_is_not_expected_to_take_long(limits: BatchLimits, expected: list[int]) -> None:
    queue = queue_of(1_000, 1_000, 1_000, limits=limits)
    assert queue.fills_a_batch == (limits is not LIMITS)
    assert queue.take_batch() == expected


@pytest.mark.parametrize(
    ("limits", "jobs"),
    [
        (BatchLimits(jobs_max=8, audio_ms_max=64_000), 8),
        (BatchLimits(jobs_max=8, audio_ms_max=10_000), 3),
        (BatchLimits(jobs_max=8, audio_ms_max=64_000, cost=Cost(second_s=BATCH_S_MAX / 13)), 4),
        (BatchLimits(jobs_max=8, audio_ms_max=64_000, cost=Cost(utterance_s=BATCH_S_MAX)), 1),
    ],
)
def test_the_usual_batch_is_within_all_limits(limits: BatchLimits, jobs: int) -> None:
    assert limits.usual_jobs == jobs


def test_only_jobs_with_equal_options_share_a_batch() -> None:
    queue: BatchQueue[int] = BatchQueue(LIMITS)
    for key, options in enumerate(["zh", "en", "zh", "en"]):
        queue.add(key, audio_ms=1_000, partial=False, options=options)
    assert queue.take_batch() == [0, 2]
    assert queue.take_batch() == [1, 3]


def test_a_model_that_stops_batching_gets_one_job_at_a_time() -> None:
    queue = queue_of(1_000, 1_000, 1_000)
    queue.limit_jobs(1)
    assert queue.fills_a_batch
    queue.limit_jobs(3)
    assert [queue.take_batch() for _ in range(3)] == [[0], [1], [2]]


def test_partials_alone_form_a_batch() -> None:
    queue: BatchQueue[str] = BatchQueue(LIMITS)
    queue.add("partial", audio_ms=2_000, partial=True)
    assert queue.take_batch() == ["partial"]


def test_a_partial_passed_over_often_becomes_the_anchor() -> None:
    queue: BatchQueue[str] = BatchQueue(LIMITS)
    queue.add("partial", audio_ms=300, partial=True)
    for turn in range(PARTIAL_PASSES_MAX):
        queue.add(f"final {turn}", audio_ms=9_000, partial=False)
        assert queue.take_batch() == [f"final {turn}"]
    queue.add("one more final", audio_ms=9_000, partial=False)
    assert queue.take_batch() == ["partial"]


def test_removed_jobs_are_in_no_batch() -> None:
    queue = queue_of(1_000, 1_000, 1_000)
    queue.remove(1)
    assert 1 not in queue
    assert queue.take_batch() == [0, 2]
    assert queue.take_batch() == []


jobs = st.lists(st.tuples(st.integers(0, 20_000), st.booleans()), max_size=60)


@given(jobs, st.integers(1, 8), st.integers(1_000, 60_000))
def test_every_job_is_in_one_batch_within_the_limits(
    drawn: list[tuple[int, bool]], jobs_max: int, audio_ms_max: int
) -> None:
    queue: BatchQueue[int] = BatchQueue(BatchLimits(jobs_max=jobs_max, audio_ms_max=audio_ms_max))
    for key, (audio_ms, partial) in enumerate(drawn):
        queue.add(key, audio_ms=audio_ms, partial=partial)
    seen: Counter[int] = Counter()
    while batch := queue.take_batch():
        lengths = [drawn[key][0] for key in batch]
        padded_ms = max(lengths) * len(batch)
        assert len(batch) <= jobs_max
        assert len(batch) == 1 or padded_ms <= audio_ms_max
        assert len(batch) == 1 or padded_ms <= PADDED_SHARE_MAX * sum(lengths)
        seen.update(batch)
    assert seen == Counter(range(len(drawn)))


@given(jobs)
def test_a_final_behind_n_others_waits_for_at_most_n_batches_of_finals(
    drawn: list[tuple[int, bool]],
) -> None:
    queue: BatchQueue[int] = BatchQueue(LIMITS)
    for key, (audio_ms, partial) in enumerate(drawn):
        queue.add(key, audio_ms=audio_ms, partial=partial)
    finals = [key for key, (_, partial) in enumerate(drawn) if not partial]
    batches_of_finals = 0
    while batch := queue.take_batch():
        batches_of_finals += not drawn[batch[0]][1]
        for key in batch:
            if key in finals:
                assert batches_of_finals <= finals.index(key) + 1


def rest_after(pacing: BatchPacing, jobs: int, took_s: float) -> float:
    pacing.batch_ended(100.0, jobs=jobs, took_s=took_s)
    return round(pacing.wait_s(100.0), 9)


def test_a_batch_of_a_single_client_is_followed_by_no_rest() -> None:
    pacing = BatchPacing()
    assert pacing.wait_s(100.0) <= 0
    pacing.batch_started()
    assert rest_after(pacing, 1, 0.01) == 0


def test_a_batch_of_several_jobs_is_followed_by_a_bounded_rest() -> None:
    pacing = BatchPacing()
    pacing.batch_started()
    assert rest_after(pacing, 2, 0.002) == 0.02
    assert pacing.wait_s(100.02) <= 0
    assert rest_after(pacing, 2, RESTLESS_BATCH_S) == REST_S_MAX


def test_a_long_batch_is_followed_by_no_rest() -> None:
    pacing = BatchPacing()
    pacing.batch_started()
    assert rest_after(pacing, 2, RESTLESS_BATCH_S + 0.01) == 0


def test_a_batch_whose_jobs_waited_is_followed_by_a_rest() -> None:
    pacing = BatchPacing()
    pacing.batch_started()
    pacing.jobs_wait()
    assert rest_after(pacing, 1, 0.01) == 0
    pacing.batch_started()
    assert rest_after(pacing, 1, 0.002) == 0.02
    pacing.batch_started()
    assert rest_after(pacing, 1, 0.01) == 0


def test_a_batch_is_full_by_jobs_or_by_audio() -> None:
    queue: BatchQueue[int] = BatchQueue(BatchLimits(jobs_max=3, audio_ms_max=10_000))
    queue.add(1, audio_ms=4_000, partial=False)
    queue.add(2, audio_ms=4_000, partial=False)
    assert not queue.fills_a_batch
    queue.add(3, audio_ms=100, partial=False)
    assert queue.fills_a_batch
    queue.remove(3)
    assert not queue.fills_a_batch
    queue.add(4, audio_ms=2_000, partial=False)
    assert queue.fills_a_batch
    for key in (1, 2, 4):
        queue.remove(key)
    assert not queue.fills_a_batch
    queue.add(5, audio_ms=10_000, partial=False)
    assert queue.fills_a_batch
    assert queue.take_batch() == [5]
    assert not queue.fills_a_batch


def test_streamed_partials_share_batches_with_each_other_only() -> None:
    limits = replace(LIMITS, streamed_jobs_max=3)
    queue = queue_of(600, limits=limits)
    for key in range(10, 15):
        queue.add(key, audio_ms=600, partial=True, streamed=True)
    assert queue.take_batch() == [0]
    assert queue.take_batch() == [10, 11, 12]
    assert queue.take_batch() == [13, 14]


def test_streamed_partials_have_a_limit_of_their_own() -> None:
    """Whatever the limits of the model of the finals, such as one utterance at a time."""
    limits = BatchLimits(jobs_max=1, audio_ms_max=1_000, streamed_jobs_max=8)
    queue: BatchQueue[int] = BatchQueue(limits)
    for key in range(8):
        queue.add(key, audio_ms=600, partial=True, streamed=True)
    assert queue.take_batch() == list(range(8))
