from __future__ import annotations

import wave
from pathlib import Path

import pytest

from tools.lab.harness import chromium


def test_silence_surrounds_the_speech(tmp_path: Path) -> None:
    path = chromium.write_recording(tmp_path / "a.wav", b"\1\2" * 800, lead_ms=50)
    with wave.open(str(path)) as file:
        assert file.getparams()[:3] == (1, 2, 16_000)
        heard = file.readframes(file.getnframes())
    assert heard[:3_200] == bytes(1_600) + b"\1\2" * 800
    assert not any(heard[3_200:]) and len(heard) > 32_000 * 30


def test_the_first_known_name_on_the_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium.path() is None
    for name in ("google-chrome", "chromium"):
        program = tmp_path / name
        program.touch(0o755)
    assert chromium.path() == str(tmp_path / "chromium")
