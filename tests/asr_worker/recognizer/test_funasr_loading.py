from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr_worker.recognizer import funasr_loading, funasr_repairs
from asr_worker.recognizer.funasr_loading import FAMILIES
from asr_worker.recognizer.punctuation import Punctuator
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
    for model_class in (*FAMILIES, Punctuator.model_class):
        assert f"model_classes {model_class}" in registered


def test_an_unknown_class_needs_all_of_funasr(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: Conformer\n")
    assert funasr_loading._modules_of(tmp_path) == ()
    (tmp_path / "config.yaml").write_text("model: CTTransformer\n")
    assert funasr_loading._modules_of(tmp_path) == Punctuator.modules


def test_an_unreachable_hub_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_args: object, **_options: object) -> str:
        raise OSError("no route to host")

    funasr_repairs.import_modules(())
    from funasr.download import download_model_from_hub

    monkeypatch.setattr(download_model_from_hub, "get_or_download_model_dir", unreachable)
    with pytest.raises(ConnectionError, match=r"paraformer.*no route to host"):
        funasr_loading.auto_model(None, model="paraformer-zh", device="cpu", disable_update=True)
