from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from asr_worker.settings import WorkerSettings, model_source


@pytest.mark.parametrize("name", ["paraformer-zh", "iic/SenseVoiceSmall", "fsmn_2.0"])
def test_other_names_are_those_of_a_hub(name: str) -> None:
    source = model_source(name)
    assert (source.kind, source.location) == ("hub", name)


def test_the_name_of_a_fake_holds_its_batch_duration() -> None:
    assert model_source("fake:50ms").kind == "fake"
    assert model_source("fake:50ms").location == "50"


def test_an_existing_directory_takes_precedence_over_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "iic" / "SenseVoiceSmall"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text("model: SenseVoiceSmall\n")
    monkeypatch.chdir(tmp_path)
    source = model_source("iic/SenseVoiceSmall")
    assert (source.kind, source.location) == ("directory", str(directory))


@pytest.mark.parametrize("name", ["/no/such/place", "./nowhere", "~/nowhere", "a/b/c", "x y"])
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no such model directory|neither a model directory"):
        model_source(name)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ValueError, match="leave it unset"):
        model_source("")


def test_a_directory_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        model_source(str(tmp_path))


def test_asr_workers_takes_precedence_over_min_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIN_WORKERS", "3")
    assert WorkerSettings(asr_model="fake:0ms").asr_workers == 3
    monkeypatch.setenv("ASR_WORKERS", "2")
    assert WorkerSettings(asr_model="fake:0ms").asr_workers == 2


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "CPU", "cuda:0 ", ""])
def test_a_device_that_torch_does_not_name_is_refused(device: str) -> None:
    with pytest.raises(ValidationError):
        WorkerSettings(asr_model="fake:0ms", asr_device=device)
