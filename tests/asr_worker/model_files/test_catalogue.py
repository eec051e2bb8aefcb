"""Names of models, and that the catalogue agrees with the packages it quotes."""

from __future__ import annotations

import re

import pytest
import whisper

from asr_worker.model_files import catalogue
from asr_worker.model_files.catalogue import HubModel, UnknownModelError, WhisperModel, model_named
from asr_worker.recognizer import funasr_repairs

WHISPER_MODELS = [model for model in catalogue.MODELS if isinstance(model, WhisperModel)]


def test_every_name_is_declared_once() -> None:
    names = [model.name for model in catalogue.MODELS]
    assert len(names) == len(set(names))
    assert {catalogue.DEFAULT_MODEL, "whisper-tiny.en", "paraformer-zh"} <= set(names)


@pytest.mark.parametrize("model", WHISPER_MODELS, ids=lambda model: model.name)
def test_openais_files_are_those_of_its_package(model: WhisperModel) -> None:
    (file,) = (file for file in model.files if file.source == "openai")
    assert whisper._MODELS[model.size].endswith(f"/{file.path}")
    assert file.path == f"{file.sha256}/{model.size}.pt"


@pytest.mark.parametrize("model", WHISPER_MODELS, ids=lambda model: model.name)
def test_every_file_has_a_place_and_a_digest(model: WhisperModel) -> None:
    for file in model.files:
        assert bool(file.path) != bool(file.wheels)
        for digest in (file.sha256, *(wheel.sha256 for wheel in file.wheels)):
            assert re.fullmatch("[0-9a-f]{64}", digest)
        assert all("==" in wheel.requirement for wheel in file.wheels)


def test_identifiers_on_hubs_are_those_of_funasr() -> None:
    funasr_repairs.import_modules(())
    from funasr.download.name_maps_from_hub import name_maps_hf, name_maps_ms

    for model in catalogue.MODELS:
        if isinstance(model, HubModel) and "/" not in model.name:
            assert name_maps_ms[model.name] == model.modelscope
            assert name_maps_hf[model.name] == model.huggingface


def test_another_name_may_be_a_repository_of_a_hub() -> None:
    model = model_named("someone/Some.Model-2")
    assert isinstance(model, HubModel)
    assert model.modelscope == model.huggingface == model.name == "someone/Some.Model-2"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("paraformr-zh", "paraformer-zh"),
        ("Whisper-Base", "whisper-base"),
        ("whisper-tiny_en", "whisper-tiny.en"),
    ],
)
def test_the_message_about_a_misspelt_name_suggests_the_right_one(name: str, meant: str) -> None:
    with pytest.raises(UnknownModelError, match=f"did you mean '{meant}'") as error:
        model_named(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a/b/c", "../secret/x", "x y", "zzzz", ".hidden/model", "a/.."])
def test_names_that_are_no_models(name: str) -> None:
    with pytest.raises(UnknownModelError):
        model_named(name)
