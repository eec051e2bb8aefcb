"""Figures from processor times."""

from __future__ import annotations

from tools.lab.bench.cpu_budget import figures


def test_the_total_leaves_the_load_generator_out() -> None:
    taken = {"gateway": 1.0, "asr_worker": 2.0, "load generator": 0.5}
    worker, gateway, total = figures(taken, 299.6, 300)
    assert (worker.value, gateway.value, total.value) == (2.0, 1.0, 3.0)
    assert total.labels == ("asr_worker", "gateway")
    assert "300 live sessions" in total.what and "0.50 ms/s" in total.reference
