from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asr_worker.recognizer.fake import FakeRecognizer
from asr_worker.recognizer.loading import build
from asr_worker.recognizer.paraformer import Paraformer
from asr_worker.recognizer.protocol import ModelLoadError
from asr_worker.settings import WorkerSettings


def test_a_fake_is_named_as_in_the_settings() -> None:
    recognizer = build(WorkerSettings(asr_model="fake:0ms"))
    assert isinstance(recognizer, FakeRecognizer)
    assert recognizer.model == "fake:0ms"


def test_a_fake_worker_does_not_import_torch() -> None:
    program = "import sys, asr_worker.service; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_directory_is_a_model_of_its_family(tiny_model_dir: Path) -> None:
    assert isinstance(build(WorkerSettings(asr_model=str(tiny_model_dir))), Paraformer)


def test_a_directory_that_cannot_be_loaded_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: NoSuchModel\n")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="can't be loaded") as caught:
        build(WorkerSettings(asr_model=str(tmp_path)))
    assert caught.value.final
    assert "\n" not in str(caught.value)
