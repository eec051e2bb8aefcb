"""Each repair is still needed, works, and is off without its fault.

A failure of a test named ``…_still_…`` means that FunASR no longer has a fault: delete the repair.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer
from asr_worker.recognizer.written_form import WrittenForm
from tests.asr_worker.recognizer import tiny_sense_voice, tiny_variants
from tests.asr_worker.recognizer.comparison import (
    BATCH,
    load_plain,
    network_of,
    plain_text,
    spoken,
    texts,
)

# ----------------------------------------------------------------------------------------- imports

PROGRAM = """
import json, sys, numpy
from pathlib import Path
from asr_worker.recognizer import funasr_loading, funasr_repairs

def build():
    return funasr_loading.auto_model(
        Path(sys.argv[1]), device="cpu", ncpu=1,
        disable_update=True, disable_pbar=True,
    )

def text(auto):
    audio = numpy.random.default_rng(1).normal(0, 0.1, 48_000).astype("float32")
    return auto.generate(input=[audio])[0]["text"]

quick = text(build())
modules = sum(name.startswith("funasr.") for name in sys.modules)
heavy = [name for name in ("transformers", "sklearn", "numba") if name in sys.modules]
funasr_repairs.import_all()
from funasr.register import tables
json.dump([quick, text(build()), modules, heavy, len(tables.model_classes)], sys.stderr)
"""


def run(program: str, *arguments: str) -> Any:
    """Run ``program`` in a process of its own, since imports cannot be undone; its JSON result."""
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    return json.loads(done.stderr.splitlines()[-1])


def test_the_import_of_needed_modules_gives_the_texts_of_the_full_import(
    tiny_model_dir: Path,
) -> None:
    quick, full, modules, heavy, model_classes = run(PROGRAM, str(tiny_model_dir))
    assert quick
    assert quick == full
    assert modules < 100
    assert heavy == []
    assert model_classes > 40, "the full import must still be possible afterwards"


def test_import_funasr_still_imports_everything() -> None:
    program = (
        "import json, sys, funasr; "
        "json.dump([n for n in ('transformers', 'sklearn') if n in sys.modules], sys.stderr)"
    )
    assert run(program) == ["transformers", "sklearn"]


def test_funasr_still_searches_for_the_lines_of_classes() -> None:
    program = (
        "import inspect, json, sys; original = inspect.getsourcelines; "
        "from asr_worker.recognizer import funasr_repairs; "
        "funasr_repairs.import_modules(['funasr.models.paraformer.model']); "
        "from funasr.register import tables; "
        "assert inspect.getsourcelines is original; "
        "json.dump(tables.model_classes_meta['Paraformer'], sys.stderr)"
    )
    assert run(program)[2] == "funasr/models/paraformer/model.py:0"


def test_output_of_funasr_is_logged_and_its_warnings_are_ignored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with funasr_repairs.quiet() as printed:
        print("Download: failed")
        importlib.import_module("warnings").warn("deprecated", stacklevel=1)
    assert printed.getvalue() == "Download: failed\n"
    assert not capsys.readouterr().out.startswith("Download")


def test_funasrs_log_records_below_error_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = logging.Handler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    funasr_repairs.silence_logs()

    def is_kept(path: str, level: int) -> bool:
        return bool(handler.filter(logging.LogRecord("", level, path, 1, "hotword", (), None)))

    assert not is_kept("/lib/funasr/auto/auto_model.py", logging.INFO)
    assert is_kept("/lib/funasr/auto/auto_model.py", logging.ERROR)
    assert is_kept("/lib/asr_worker/service.py", logging.INFO)


# ---------------------------------------------------------------------------------------- batching


def test_batches_still_differ_without_repair(tiny_model_dir: Path, plain: Any) -> None:
    unrepaired = FunasrRecognizer(load_plain(tiny_model_dir), model="unrepaired", device="cpu")
    rng = random.Random(500)
    audio = [spoken(seed, rng.randint(4_800, 128_000)) for seed in range(BATCH)]
    alone = [plain_text(plain, samples) for samples in audio]
    assert texts(unrepaired, audio) != alone


def test_padding_still_changes_weights_and_zeroed_padding_does_not(plain: Any) -> None:
    predictor = plain.model.predictor
    assert funasr_repairs.padding_changes_weights(predictor)
    handle = predictor.register_forward_pre_hook(funasr_repairs._zero_padding)
    try:
        assert not funasr_repairs.padding_changes_weights(predictor)
    finally:
        handle.remove()


def plain_cif() -> Any:
    """FunASR's own function, also after a repair."""
    cif = importlib.import_module("funasr.models.paraformer.cif_predictor").cif_v1
    return inspect.unwrap(cif)


def test_the_last_row_still_needs_a_token(recognizer: WrittenForm) -> None:
    cif = plain_cif()
    assert funasr_repairs.last_row_needs_a_token(cif)
    guarded = funasr_repairs._with_guard_row(cif)
    assert not funasr_repairs.last_row_needs_a_token(guarded)
    hidden, weights = torch.rand(2, 5, 3), torch.tensor([[0.5] * 5, [0.6, 0.6, 0, 0, 0]])
    for found, expected in zip(
        guarded(hidden, weights, 1.0), cif(hidden, weights, 1.0), strict=True
    ):
        assert torch.equal(found, expected)


def test_a_repaired_model_needs_no_repair(recognizer: WrittenForm) -> None:
    assert funasr_repairs.repair_batching(network_of(recognizer)) == []


def test_a_model_without_cif_predictor_needs_no_repair() -> None:
    assert funasr_repairs.repair_batching(torch.nn.Linear(1, 1)) == []


@pytest.fixture(scope="module")
def bicif(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """FunASR's BiCifParaformer as it is."""
    directory = tmp_path_factory.mktemp("models") / "bicif"
    return load_plain(tiny_variants.build(directory, "BiCifParaformer"))


def test_padding_still_changes_times_and_a_packed_lstm_does_not(bicif: Any) -> None:
    predictor = bicif.model.predictor
    assert funasr_repairs.padding_changes_times(predictor)
    predictor.get_upsample_timestamp = funasr_repairs._with_packed_lstm(predictor)
    assert not funasr_repairs.padding_changes_times(predictor)
    del predictor.get_upsample_timestamp


def test_a_change_of_the_configuration_still_has_no_effect_before_the_first_call(
    bicif: Any, tmp_path: Path
) -> None:
    auto = load_plain(tiny_variants.build(tmp_path / "model", "Paraformer"))
    auto.kwargs["frontend"].dither = 0.0
    first = auto.kwargs["frontend"]
    funasr_repairs.restore_configuration(auto)
    used = auto.kwargs["frontend"]
    assert used is not first
    assert used.dither == 1.0
    plain_text(auto, spoken(1))
    assert auto.kwargs["frontend"] is used


# ------------------------------------------------------------------------------------- token times


def test_sense_voice_still_encodes_its_tokens_again(tmp_path: Path) -> None:
    auto = load_plain(tiny_sense_voice.build(tmp_path / "model"))
    funasr_repairs.restore_configuration(auto)
    tokenizer = auto.kwargs["tokenizer"]
    inside = next(
        token
        for token in range(tokenizer.get_vocab_size())
        if tokenizer.sp.id_to_piece(token).isalpha()
    )
    assert tokenizer.tokens2ids([tokenizer.sp.id_to_piece(inside)]) != [[inside]]
    assert funasr_repairs.align_decoded_tokens(tokenizer)
    tokenizer.decode([inside, tokenizer.sp.piece_to_id("<|zh|>")])
    assert tokenizer.tokens2ids(tokenizer.text2tokens("")[4:]) == [[inside]]


@pytest.fixture
def timestamps(monkeypatch: pytest.MonkeyPatch, plain: Any) -> Any:
    """The function of FunASR's Paraformer that computes times, restored after the test."""
    module: Any = importlib.import_module("funasr.models.paraformer.model")
    monkeypatch.setattr(module, "ts_prediction_lfr6_standard", None)
    funasr_repairs.replace_token_times(lambda weights, count: [[len(weights), count]])
    return module.ts_prediction_lfr6_standard


def test_paraformer_still_passes_peaks_before_weights() -> None:
    source = inspect.getsource(importlib.import_module("funasr.models.paraformer.model"))
    call = "".join(source.partition("ts_prediction_lfr6_standard(\n")[2].split()[:2])
    assert call == "timestamp_pre_peak_index,timestamp_alphas,"


def test_times_are_computed_from_weights_whatever_the_call(timestamps: Any) -> None:
    peaks, weights = torch.zeros(9), torch.zeros(4)
    assert timestamps(peaks, weights, ["a", "b"], vad_offset=0, upsample_rate=1) == ("", [[4, 2]])
    assert timestamps(us_alphas=weights, us_peaks=peaks, char_list=["a", "</s>"]) == ("", [[4, 1]])
