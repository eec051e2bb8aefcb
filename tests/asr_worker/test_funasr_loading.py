"""The quick import of FunASR, in processes of its own: imports can't be undone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asr_worker import funasr_loading

PROGRAM = """
import json, sys, numpy
from pathlib import Path
from asr_worker import funasr_loading

def build():
    return funasr_loading.auto_model(
        Path(sys.argv[1]), model=sys.argv[1], device="cpu", ncpu=1,
        disable_update=True, disable_pbar=True,
    )

def text(auto):
    audio = numpy.random.default_rng(1).normal(0, 0.1, 48_000).astype("float32")
    return auto.generate(input=[audio])[0]["text"]

quick = text(build())
modules = sum(name.startswith("funasr.") for name in sys.modules)
heavy = [name for name in ("transformers", "sklearn", "numba") if name in sys.modules]
funasr_loading._all_of_funasr()
from funasr.register import tables
json.dump([quick, text(build()), modules, heavy, len(tables.model_classes)], sys.stderr)
"""


def test_the_quick_import_gives_the_texts_of_the_full_one(tiny_model_dir: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tiny_model_dir)],
        capture_output=True,
        check=True,
    )
    quick, full, modules, heavy, model_classes = json.loads(done.stderr.splitlines()[-1])
    assert quick
    assert quick == full
    assert modules < 100
    assert heavy == []
    assert model_classes > 40, "the full import must still be possible afterwards"


def test_what_is_registered_is_found_without_importing_it() -> None:
    modules = funasr_loading._modules_registering({"SenseVoiceSmall", "WavFrontend"})
    assert modules is not None
    assert "funasr.models.sense_voice.model" in modules
    assert "funasr.frontends.wav_frontend" in modules
    assert "funasr.models.whisper.model" not in modules


def test_copies_of_one_module_are_no_ambiguity() -> None:
    assert funasr_loading._modules_registering({"ParaformerSANMDecoder"}) is not None


def test_a_name_with_two_meanings_needs_the_full_import() -> None:
    assert funasr_loading._modules_registering({"TransformerDecoder"}) is None


def test_a_hub_out_of_reach_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_args: object, **_options: object) -> str:
        raise OSError("no route to host")

    funasr_loading.import_bare_funasr()
    from funasr.download import download_model_from_hub

    monkeypatch.setattr(download_model_from_hub, "get_or_download_model_dir", unreachable)
    with pytest.raises(ConnectionError, match=r"paraformer.*no route to host"):
        funasr_loading.auto_model(None, model="paraformer-zh", device="cpu", disable_update=True)
