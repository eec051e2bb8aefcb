"""The series that dashboards and alerts expect before the first event."""

from __future__ import annotations

from typing import get_args

import pytest
from prometheus_client import Counter

from persistence import metrics
from persistence.batch_buffer import Discard
from wire.records import RecordBody


def labels_of(counter: Counter) -> set[str]:
    """Label values of the series that exist."""
    return {
        value
        for family in counter.collect()
        for sample in family.samples
        for value in sample.labels.values()
    }


@pytest.mark.parametrize(
    "counter", [metrics.ROWS, metrics.REJECTED_ROWS, metrics.LATE_ROWS, metrics.STALE_ROWS]
)
def test_every_kind_of_row_has_a_series(counter: Counter) -> None:
    assert labels_of(counter) == {body.__name__ for body in get_args(RecordBody)}


def test_every_outcome_of_a_batch_has_a_series() -> None:
    assert labels_of(metrics.BATCHES) == {"committed", "failed"}


def test_every_reason_of_a_discarded_publication_has_a_series() -> None:
    assert labels_of(metrics.DISCARDED) - {"unexpected_answer"} == set(get_args(Discard))
