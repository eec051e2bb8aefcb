"""The directory of models, and its locks."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from asr_worker.model_files.cache import ModelCache, size_bytes
from asr_worker.model_files.catalogue import UnknownModelError, model_named
from tests.deleted_folders import without

BASE = model_named("whisper-base")
SENSE_VOICE = model_named("iic/SenseVoiceSmall")


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    return ModelCache(tmp_path / "not" / "made" / "yet")


def made(partial: Path, content: str = "model: X\n") -> Path:
    directory = partial / "model"
    directory.mkdir()
    (directory / "config.yaml").write_text(content, encoding="utf-8")
    return directory


def install(cache: ModelCache, name: str) -> Path:
    model = model_named(name)
    with cache.locked(model, lambda: None) as partial:
        return cache.install(model, made(partial))


def never() -> None:
    raise AssertionError("the lock is free")


def test_an_empty_cache_has_no_models(cache: ModelCache) -> None:
    assert cache.names() == []
    assert cache.find("whisper-base") is None
    assert cache.remove(BASE) is False


def test_models_are_found_by_their_names(cache: ModelCache) -> None:
    assert install(cache, "whisper-base") == cache.find("whisper-base") == cache.path_of(BASE)
    install(cache, "iic/SenseVoiceSmall")
    assert cache.names() == ["iic/SenseVoiceSmall", "whisper-base"]
    assert size_bytes(cache.root / "whisper-base") == len("model: X\n")
    with pytest.raises(UnknownModelError):
        cache.find("whisper-bass")


def test_an_unfinished_model_is_not_there(cache: ModelCache) -> None:
    with cache.locked(BASE, never) as partial:
        made(partial)
    assert cache.find("whisper-base") is None
    assert cache.names() == []
    with cache.locked(BASE, never) as again:
        assert (again / "model" / "config.yaml").is_file(), "it can be continued"


def test_a_removed_model_leaves_nothing(cache: ModelCache) -> None:
    install(cache, "iic/SenseVoiceSmall")
    with cache.locked(SENSE_VOICE, never) as partial:
        (partial / "left").write_bytes(b"x")
    assert cache.remove(SENSE_VOICE) is True
    assert cache.names() == []
    assert cache.remove(SENSE_VOICE) is False


def test_one_process_at_a_time_works_on_a_model(cache: ModelCache) -> None:
    waiting, entered = threading.Event(), threading.Event()

    def second() -> None:
        with cache.locked(BASE, waiting.set):
            entered.set()

    thread = threading.Thread(target=second)
    with cache.locked(BASE, never):
        thread.start()
        assert waiting.wait(10)
        assert not entered.is_set()
        with cache.locked(SENSE_VOICE, never):
            pass
    thread.join()
    assert entered.is_set()


def test_folders_that_are_deleted_meanwhile_have_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip does so with its own while the size of a download is counted."""
    for name in ("gone", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"12345")
    monkeypatch.setattr(os, "scandir", without("gone"))
    assert size_bytes(tmp_path) == 5
