"""Metrics of several processes."""

from __future__ import annotations

import pytest

from tools.lab.harness import metrics
from tools.lab.harness.http import Answer
from tools.lab.harness.metrics import Metrics, kind_at, scrape

GATEWAY = """\
# TYPE asr_x counter
asr_x_total{reason="a"} 2.0
asr_x_total{reason="b"} 1.0
asr_x_created{reason="a"} 9.0
# TYPE asr_y gauge
asr_y 4.0
"""


def test_the_processes_that_answer_are_scraped(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(url: str) -> Answer:
        asked.append(url)
        up = url in (f"http://127.0.0.1:{port}/metrics" for port in (120, 121))
        return Answer(200, {}, GATEWAY) if up else Answer(0, {}, None)

    monkeypatch.setattr(metrics, "ask", ask)
    seen = scrape(100, ["broker", "gateway"])
    assert len(asked) == 2 * metrics.PORTS_TRIED
    assert seen.processes.keys() == {20, 21}
    assert seen.total("asr_x_total") == 6.0
    assert seen.total("asr_x_total", reason="a") == 4.0
    assert seen.total("asr_x_total", reason="c") == 0.0
    assert seen.each("asr_y") == {20: 4.0, 21: 4.0}
    assert seen.each("asr_x_total") == {}


def test_no_process_has_no_metrics() -> None:
    assert Metrics({}).total("asr_x_total") == 0.0


@pytest.mark.parametrize(
    ("offset", "kind"),
    [(0, "broker"), (10, "persistence"), (20, "gateway"), (23, "gateway"), (40, "asr_worker")],
)
def test_the_kind_at_a_port_offset(offset: int, kind: str) -> None:
    assert kind_at(offset) == kind
