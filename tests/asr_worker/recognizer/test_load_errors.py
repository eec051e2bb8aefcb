"""Each cause of a failed loading has its own line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from asr_worker.recognizer import funasr_loading
from asr_worker.recognizer.load_errors import load_error
from asr_worker.recognizer.protocol import ModelLoadError
from asr_worker.settings import ModelSource, WorkerSettings, model_source

SOURCE = ModelSource(name="/models/x", kind="directory", location="/models/x")


@pytest.fixture
def broken(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A model directory to break."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "broken"))


def loading(directory: Path) -> ModelLoadError:
    values = WorkerSettings(asr_model=str(directory))
    with pytest.raises(ModelLoadError) as caught:
        funasr_loading.load(values, model_source(values.asr_model))
    assert "\n" not in str(caught.value)
    return caught.value


def unknown_class(directory: Path) -> None:
    config = (directory / "config.yaml").read_text(encoding="utf-8")
    config = config.replace("model: Paraformer", "model: Conformist")
    (directory / "config.yaml").write_text(config, encoding="utf-8")


def cut(directory: Path) -> None:
    weights = directory / "model.pt"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def emptied(directory: Path) -> None:
    (directory / "model.pt").write_bytes(b"")


def without_weights(directory: Path) -> None:
    (directory / "model.pt").unlink()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (unknown_class, "FunASR has no model of the class 'Conformist'"),
        (cut, "its file of weights is damaged"),
        (emptied, "its file of weights is damaged"),
        (without_weights, "a file is missing: no weights in /"),
    ],
)
def test_a_directory_that_cannot_be_loaded(
    broken: Path, fault: Callable[[Path], None], said: str
) -> None:
    fault(broken)
    error = loading(broken)
    assert said in str(error)
    assert error.final


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FunASR hides it and fails with UnboundLocalError."""
    (tmp_path / "config.yaml").write_text("model: Paraformer\n", encoding="utf-8")
    (tmp_path / "model.pt").touch()
    (tmp_path / "no_such_package_user.py").write_text("import no_such_package\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(funasr_loading, "_modules_of", lambda _directory: ("no_such_package_user",))
    monkeypatch.delitem(sys.modules, "no_such_package_user", raising=False)
    error = loading(tmp_path)
    assert "it needs the package 'no_such_package', which is not installed" in str(error)
    assert error.final


@pytest.mark.parametrize(
    "raised",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"
        ),
        OSError(12, "Cannot allocate memory: out of memory"),
    ],
)
def test_a_lack_of_memory_may_pass(raised: Exception) -> None:
    error = load_error(SOURCE, raised)
    assert "there is not enough memory" in str(error)
    assert not error.final


def test_a_damaged_model_that_was_pulled_can_be_pulled_again() -> None:
    source = ModelSource(name="whisper-base", kind="named", location="whisper-base")
    error = load_error(source, EOFError("Ran out of input"))
    assert "`asr models rm whisper-base`, then pull it again" in str(error)


def test_another_error_is_shown_with_its_type() -> None:
    error = load_error(SOURCE, ValueError("first\nsecond"))
    assert str(error) == "model '/models/x' can't be loaded: ValueError: first"
    assert error.final


def test_the_cause_beneath_counts() -> None:
    beneath = ModuleNotFoundError("No module named 'editdistance'", name="editdistance")
    error = UnboundLocalError("local variable 'x'")
    error.__cause__ = beneath
    assert "the package 'editdistance'" in str(load_error(SOURCE, error))
