"""The bare model's time."""

from __future__ import annotations

from tools.lab.bench.gateway import bare_call_ms
from tools.lab.bench.worker import utterances


def test_the_bare_model_takes_time() -> None:
    assert 0 < bare_call_ms(utterances(2)) < 60_000
