"""Measurements of the model card."""

from __future__ import annotations

import json
from pathlib import Path

from tools.training.demo_model import report
from tools.training.demo_model.evaluation import Score


def test_totals_add_up_over_speakers() -> None:
    speakers = [Score(10, 1, 2, 1).as_json(), Score(30, 3, 4, 2).as_json()]
    assert report._total(speakers) == Score(40, 4, 6, 3).as_json()


def test_metrics_are_written_as_json(tmp_path: Path) -> None:
    report.write_metrics(tmp_path, {"bank_clean": {"digits": 3}})
    written = (tmp_path / report.METRICS_FILE).read_text(encoding="utf-8")
    assert json.loads(written) == {"bank_clean": {"digits": 3}}
