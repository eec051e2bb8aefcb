"""Pulling a model into the cache: sources in order, conversion, distinct errors."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from msgspec import structs
from whisper.model import Whisper

from asr_worker.model_files import pull as p
from asr_worker.model_files import sources
from asr_worker.model_files.cache import ModelCache
from asr_worker.model_files.catalogue import Model, WeightsFile, WhisperModel, model_named
from asr_worker.model_files.download import NoSpaceError, SourceError, sha256_of
from asr_worker.model_files.sources import Source
from runtime import exit_codes
from tests.asr_worker.model_files.file_server import FileServer, Steps
from tests.asr_worker.model_files.test_whisper_weights import DIMENSIONS, openai_checkpoint

HUBS = [Source("modelscope", "https://m"), Source("huggingface", "https://h")]


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "models")


@pytest.fixture
def tiny(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WhisperModel:
    """A Whisper model of random weights that ``server`` has, under a name of the catalogue."""
    openai_checkpoint(Whisper(DIMENSIONS), tmp_path / "tiny.pt")
    file = WeightsFile(
        source="openai",
        form="openai",
        path="tiny.pt",
        size_bytes=(tmp_path / "tiny.pt").stat().st_size,
        sha256=sha256_of(tmp_path / "tiny.pt"),
    )
    server.files["/tiny.pt"] = (tmp_path / "tiny.pt").read_bytes()
    real = model_named("whisper-tiny.en")
    assert isinstance(real, WhisperModel)
    model = structs.replace(real, files=(file,))
    monkeypatch.setattr(p, "model_named", lambda _name: model)
    heads = [[0, 1]]
    monkeypatch.setattr("asr_worker.model_files.whisper_weights.alignment_heads", lambda *_: heads)
    return model


def test_a_model_is_fetched_converted_and_kept(
    server: FileServer, tiny: WhisperModel, cache: ModelCache, steps: Steps
) -> None:
    known = [Source("modelscope", "https://m"), Source("openai", server.url)]
    for _ in range(2):
        path = p.pull(tiny.name, cache, known, steps)
        assert path == cache.find(tiny.name)
        assert sorted(file.name for file in path.iterdir()) == ["config.yaml", "model.pt"]
    assert len(server.requests) == 1
    assert steps.steps == ["whisper-tiny.en from openai", "converting whisper-tiny.en"]
    left = [path.name for path in (cache.root / ".partial").iterdir()]
    assert left == ["whisper-tiny.en.lock"]


def test_two_processes_fetch_a_model_once(
    server: FileServer, tiny: WhisperModel, cache: ModelCache, steps: Steps
) -> None:
    known = [Source("openai", server.url)]
    threads = [
        threading.Thread(target=p.pull, args=(tiny.name, cache, known, steps)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert cache.names() == [tiny.name]


def test_a_file_that_is_no_model_is_the_sources_fault(
    server: FileServer, tiny: WhisperModel, cache: ModelCache, steps: Steps, tmp_path: Path
) -> None:
    (tmp_path / "page").write_bytes(b"<html>")
    server.files["/tiny.pt"] = b"<html>"
    changed = structs.replace(
        tiny.files[0], sha256=sha256_of(tmp_path / "page"), size_bytes=len(b"<html>")
    )
    structs.force_setattr(tiny, "files", (changed,))
    with pytest.raises(p.PullError, match="is no checkpoint"):
        p.pull(tiny.name, cache, [Source("openai", server.url)], steps)
    assert cache.names() == []


# ---------------------------------------------------------------------------------- repositories


def hubs_that(monkeypatch: pytest.MonkeyPatch, **answers: Exception | str) -> None:
    """Each hub writes a file of that text, or raises."""

    def fetch(source: Source, _model: Model, target: Path) -> None:
        answer = answers[source.name]
        if isinstance(answer, Exception):
            raise answer
        target.mkdir()
        (target / "config.yaml").write_text(answer, encoding="utf-8")

    monkeypatch.setattr(sources, "fetch_repository", fetch)


def test_the_next_source_is_asked(
    cache: ModelCache, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    hubs_that(monkeypatch, modelscope=SourceError("no route"), huggingface="model: X\n")
    path = p.pull("paraformer-zh", cache, [Source("pip", ""), *HUBS], steps)
    assert (path / "config.yaml").read_text(encoding="utf-8") == "model: X\n"
    assert steps.steps == ["paraformer-zh from modelscope", "paraformer-zh from huggingface"]


@pytest.mark.parametrize(
    ("modelscope", "huggingface", "code", "said"),
    [
        (
            SourceError("HTTP 404", is_missing=True),
            SourceError("HTTP 401", is_missing=True),
            exit_codes.CONFIG,
            "no such model",
        ),
        (
            SourceError("no route"),
            SourceError("HTTP 404", is_missing=True),
            exit_codes.UNAVAILABLE,
            "no source delivers it (modelscope: no route; huggingface: HTTP 404)",
        ),
        (NoSpaceError("no space left"), SourceError("x"), exit_codes.UNAVAILABLE, "no space left"),
        (OSError(13, "Permission denied", "/x"), SourceError("x"), exit_codes.UNAVAILABLE, "/x"),
    ],
)
def test_a_wrong_name_and_an_unreachable_hub_are_distinguished(
    cache: ModelCache,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
    modelscope: Exception,
    huggingface: Exception,
    code: int,
    said: str,
) -> None:
    hubs_that(monkeypatch, modelscope=modelscope, huggingface=huggingface)
    with pytest.raises(p.PullError) as caught:
        p.pull("some/model", cache, HUBS, steps)
    assert caught.value.code == code
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert cache.names() == []


def test_a_model_that_no_source_can_have(cache: ModelCache, steps: Steps) -> None:
    with pytest.raises(p.PullError, match="no entry of ASR_MODEL_SOURCES") as caught:
        p.pull("paraformer-zh", cache, [Source("pip", "")], steps)
    assert caught.value.code == exit_codes.CONFIG
