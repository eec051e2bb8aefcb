"""The short form of the command, and its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from tools.lab.harness.process import ROOT
from tools.lab.hosts import __main__ as command
from tools.lab.hosts.network import why_impossible
from tools.lab.loadtest.load import CHUNK_MS
from tools.lab.loadtest.speech import DigitSpeech
from tools.lab.loadtest.user import Outcome

END_S_MAX = 580.0


@pytest.mark.timeout(600)
def test_every_host_is_cut_once_and_every_word_is_right(tmp_path: Path) -> None:
    if reason := why_impossible():
        pytest.skip(f"no network namespaces: {reason}")
    arguments = [sys.executable, "-m", "tools.lab.hosts", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, timeout=END_S_MAX, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    rows = json.loads((tmp_path / "chaos_report.json").read_text(encoding="utf-8"))
    assert [row["fault"] for row in rows][-1] == "capture of the bus"
    assert rows[0]["stored"] == command.QUICK_SESSIONS


def test_without_namespaces_it_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "why_impossible", lambda: "no root")
    monkeypatch.delenv(command.INSIDE, raising=False)
    with pytest.raises(typer.Exit) as ended:
        command.main()
    assert ended.value.exit_code == command.NO_NAMESPACES


def test_speakers_at_once() -> None:
    def spoke(came_in_s: float | None, ended_s: float) -> Outcome:
        return Outcome("s", "", came_in_s=came_in_s, ended_s=ended_s, refusals=1)

    outcomes = [spoke(0.0, 5.0), spoke(1.0, 3.0), spoke(3.0, 4.0), spoke(None, 9.0)]
    assert command.most_at_once(outcomes) == 2
    assert command.most_at_once([]) == 0
    assert command.refusals(outcomes) == 4


def test_parts_that_must_not_be_readable_are_those_that_are_said() -> None:
    parts = command.parts_said(3, 2, 6.0)
    speech = DigitSpeech(3 * 10_007 + 1, 6_000, CHUNK_MS)
    said = b"".join(speech.chunk(index) for index in range(speech.chunk_count))
    assert speech.text.encode()[: command.TEXT_PART_BYTES] in parts
    loud = [part for part in parts if part in said]
    assert len(loud) > 2
    assert all(np.frombuffer(part, "<i2").max() > command.LOUD for part in loud)


def test_parts_are_found_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "SEARCHED_BYTES", 16)
    captured = bytes(range(100)) + b"one two three"
    within = [captured[:5], captured[14:19], captured[15:21], captured[30:33], b"three", b"one two"]
    elsewhere = [b"one three", captured[10:12] + b"?", b"threes", captured[20:40] + b"?"]
    assert command.found_in(captured, [*within, *elsewhere]) == set(within)
    assert command.found_in(b"", within) == set()
