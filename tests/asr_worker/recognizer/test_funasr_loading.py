from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from asr_worker.recognizer import funasr_loading
from asr_worker.recognizer.funasr_loading import FAMILIES
from asr_worker.recognizer.protocol import ModelLoadError
from asr_worker.recognizer.punctuation import Punctuator
from asr_worker.settings import WorkerSettings, model_source
from tests.asr_worker.recognizer import tiny_punctuation, tiny_variants, tiny_whisper
from tests.asr_worker.recognizer.comparison import load
from tests.asr_worker.recognizer.test_funasr_repairs import run

PROGRAM = """
import inspect, json, sys
from asr_worker.recognizer import funasr_repairs

funasr_repairs.import_modules(json.loads(sys.argv[1]))
from funasr.register import tables

def sources():
    return {
        f"{table} {name}": inspect.getsource(found)
        for table, classes in vars(type(tables)).items()
        if table.endswith("_classes")
        for name, found in classes.items()
    }

quick = sources()
funasr_repairs.import_all()
full = sources()
json.dump([[name for name in quick if quick[name] != full[name]], list(quick)], sys.stderr)
"""


def test_modules_of_families_register_the_classes_of_the_full_import() -> None:
    """Several FunASR modules register the same name: here the last import must not matter."""
    modules = {name for family in FAMILIES.values() for name in family.modules}
    modules |= set(Punctuator.modules)
    different, registered = run(PROGRAM, json.dumps(sorted(modules)))
    assert different == []
    expected = [model_class for model_class, family in FAMILIES.items() if family.modules]
    for model_class in (*expected, Punctuator.model_class):
        assert f"model_classes {model_class}" in registered


def test_a_speaker_model_is_no_recogniser(tmp_path: Path) -> None:
    directory = tiny_variants.build(tmp_path / "model", "CAMPPlus")
    with pytest.raises(ModelLoadError, match=r"\(CAMPPlus\) recognises no speech: .*no text") as e:
        load(directory)
    assert e.value.final


def test_a_punctuation_model_is_no_recogniser(tmp_path: Path) -> None:
    directory = tiny_punctuation.build(tmp_path / "model")
    with pytest.raises(ModelLoadError, match=r"\(CTTransformer\) recognises no speech") as e:
        load(directory)
    assert e.value.final
    assert "\n" not in str(e.value)


def test_an_unknown_class_needs_all_of_funasr(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: Conformer\n")
    assert funasr_loading._modules_of(tmp_path) == ()
    (tmp_path / "config.yaml").write_text("model: CTTransformer\n")
    assert funasr_loading._modules_of(tmp_path) == Punctuator.modules


def test_a_model_that_was_not_pulled_names_the_command(tmp_path: Path) -> None:
    """Workers fetch nothing."""
    values = WorkerSettings(asr_model="whisper-tiny.en", asr_model_dir=tmp_path)
    with pytest.raises(ModelLoadError, match=r"`asr models pull whisper-tiny\.en`") as caught:
        funasr_loading.load(values, model_source(values.asr_model))
    assert caught.value.final
    assert "\n" not in str(caught.value)


def test_a_pulled_model_is_loaded_from_its_directory(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "tiny").symlink_to(tiny_model_dir)
    values = WorkerSettings(asr_model="someone/tiny", asr_model_dir=tmp_path)
    assert funasr_loading.load(values, model_source(values.asr_model)).model == "someone/tiny"


def test_a_missing_package_of_a_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny_whisper.build(tmp_path)
    for module in [name for name in sys.modules if name.startswith("funasr.models.whisper.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "whisper", None)
    with pytest.raises(ModelLoadError, match="needs the package 'openai-whisper'") as error:
        load(directory)
    assert error.value.final
    assert "\n" not in str(error.value)
