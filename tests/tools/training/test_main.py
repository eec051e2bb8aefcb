"""``python -m tools.training``: its stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.training import __main__ as commands


def test_all_runs_the_stages_whose_results_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for stage in ("synthesise", "pretrain", "tune", "evaluate"):
        monkeypatch.setattr(commands, stage, lambda *_a, _s=stage, **_k: called.append(_s))
    commands.everything(tmp_path)
    assert called == ["synthesise", "pretrain", "evaluate"]
    (tmp_path / "base.pt").touch()
    called.clear()
    commands.everything(tmp_path)
    assert called == ["synthesise", "evaluate"]
