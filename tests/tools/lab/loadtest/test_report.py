from __future__ import annotations

import json
from pathlib import Path

from tests.tools.lab.loadtest.test_figures import outcome
from tools.lab.loadtest import report
from tools.lab.loadtest.figures import Targets, summary
from tools.lab.loadtest.run import Results
from tools.lab.loadtest.samples import Sample, Samples
from tools.lab.loadtest.user import Status


def results(*statuses: Status) -> Results:
    samples = Samples("http://127.0.0.1:9")
    samples.taken = [
        Sample(
            float(at),
            {"gateway": 0.1 * at},
            {"gateway": 50.0},
            {"gateway": 30.0},
            {"gateway": 9},
            {"queued": at},
        )
        for at in range(3)
    ]
    return Results(
        outcomes=[outcome(status) for status in statuses],
        samples=samples,
        generator_cpu_s=1.0,
        wall_s=10.0,
        late_ms=3.0,
    )


def test_a_report_in_all_its_forms(tmp_path: Path) -> None:
    run = results("succeeded", "succeeded")
    run.samples.models = ("demo",)
    paths = report.write(tmp_path / "new", summary(run.outcomes), run, Targets())
    assert all(path.stat().st_size for path in paths)
    assert {path.suffix for path in paths} == {".md", ".json", ".jsonl", ".png"}
    text = paths[0].read_text(encoding="utf-8")
    assert "| most at once | 2 of 2 |" in text and "\nModel: demo.\n" in text
    assert "**holds**" in text and "| gateway | 0.10 | 50 |" in text
    stored = json.loads(paths[1].read_text(encoding="utf-8"))
    assert stored["models"] == ["demo"]
    assert stored["holds"] and stored["queued_max"] == 2 and stored["generator_cores"] == 0.1


def test_the_report_shows_wrong_texts_with_their_differences() -> None:
    run = results("succeeded", "wrong_text")
    text = report.markdown(summary(run.outcomes), run, Targets(), None)
    assert "**does not hold**" in text
    assert "* `s`: one [-two-]" in text
    assert "| why | 1 |" in text


def test_a_run_without_any_session_has_a_report() -> None:
    run = results()
    assert "does not hold" in report.markdown(summary([]), run, Targets(), None)
