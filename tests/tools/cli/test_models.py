"""``asr models``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asr_worker.model_files.cache import ModelCache
from asr_worker.model_files.catalogue import MODELS, model_named
from runtime import exit_codes
from tools.cli.models import app


def run(
    root: Path, *arguments: str, sources: str = ",", columns: int = 200
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    environment = {
        "ASR_MODEL_DIR": str(root),
        "ASR_MODEL_SOURCES": sources,
        "COLUMNS": str(columns),
    }
    result = CliRunner().invoke(app, arguments, env=environment)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A cache with one declared model and one of a hub."""
    cache = ModelCache(tmp_path)
    for name in ("whisper-base", "someone/model"):
        model = model_named(name)
        with cache.locked(model, lambda: None) as partial:
            (partial / "made").mkdir()
            (partial / "made" / "model.pt").write_bytes(bytes(3_000_000))
            cache.install(model, partial / "made")
    return tmp_path


def test_known_models_and_those_here_are_listed(root: Path) -> None:
    code, shown, _ = run(root, "list")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in shown.splitlines()[1:]}
    assert {model.name for model in MODELS} | {"someone/model"} == rows.keys()
    assert rows["whisper-base"][-2:] == rows["someone/model"][-2:] == ["3", "MB"]
    assert rows["whisper-tiny.en"][-2:] == ["76", "MB"]


def test_no_name_is_cut_on_a_narrow_terminal(root: Path) -> None:
    shown = run(root, "list", columns=80)[1]
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_list_is_available_as_json(root: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run(root, "list", "--json")[1])}
    assert rows["whisper-base"]["path"] == str(root / "whisper-base")
    assert rows["whisper-base"]["download_mb"] == 145
    assert rows["paraformer-zh"]["path"] is None
    assert rows["someone/model"]["download_mb"] is None


def test_pulling_a_present_model_contacts_nobody(root: Path) -> None:
    assert run(root, "pull", "whisper-base") == (0, f"{root}/whisper-base\n", "")
    code, shown, _ = run(root, "pull", "whisper-base", "someone/model", "--json")
    assert code == 0
    assert json.loads(shown)["someone/model"] == str(root / "someone/model")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pull", "paraformr-zh"), exit_codes.CONFIG, "did you mean 'paraformer-zh'"),
        (("pull", "whisper-tiny.en"), exit_codes.CONFIG, "no entry of ASR_MODEL_SOURCES"),
        (("rm", "whisper-tiny.en"), exit_codes.FAILURE, "is not in"),
        (("rm", "whisper-tinny"), exit_codes.CONFIG, "did you mean"),
    ],
)
def test_errors_are_one_line(root: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, shown, why = run(root, *arguments)
    assert (found, shown) == (code, "")
    assert why.startswith("error: ") and said in why and why.count("\n") == 1


def test_an_unreachable_source_may_be_tried_again(root: Path) -> None:
    code, _, why = run(root, "pull", "whisper-tiny.en", sources="openai=http://127.0.0.1:1")
    assert code == exit_codes.UNAVAILABLE
    assert "openai: Connection refused" in why


def test_a_model_is_removed(root: Path) -> None:
    assert run(root, "rm", "whisper-base", "someone/model") == (0, "", "")
    assert ModelCache(root).names() == []
