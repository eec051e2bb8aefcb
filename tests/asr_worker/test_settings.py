from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from asr_worker.model_files.catalogue import DEFAULT_MODEL
from asr_worker.settings import ModelFilesSettings, WorkerSettings, model_source, served_models


@pytest.mark.parametrize("name", ["paraformer-zh", "iic/SenseVoiceSmall", "whisper-base"])
def test_other_names_are_those_of_models(name: str) -> None:
    source = model_source(name)
    assert (source.kind, source.location) == ("named", name)


def test_the_name_of_a_fake_holds_its_batch_duration() -> None:
    assert model_source("fake:50ms").kind == "fake"
    assert model_source("fake:50ms+10ms/s*8").location == "fake:50ms+10ms/s*8"


def test_an_existing_directory_takes_precedence_over_a_name(
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


@pytest.mark.parametrize("name", ["nosuch", "/nowhere", "demo"])
def test_the_message_about_a_streaming_model_names_its_setting(name: str) -> None:
    with pytest.raises(ValidationError, match=r"Value error, ASR_ONLINE_MODEL: "):
        WorkerSettings(asr_online_model=name)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ValueError, match="leave it unset"):
        model_source("")


def test_a_directory_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        model_source(str(tmp_path))


def test_named_models_are_those_to_pull(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    assert WorkerSettings(asr_model="demo").named_models() == []
    settings = WorkerSettings(
        asr_model=str(tmp_path),
        asr_online_model="paraformer-zh-streaming",
        asr_punc_model="ct-punc",
    )
    assert settings.named_models() == ["paraformer-zh-streaming", "ct-punc"]
    several = WorkerSettings(asr_models="zh=paraformer-zh,a=demo")
    assert several.named_models() == ["paraformer-zh"]


def test_models_are_kept_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ModelFilesSettings().model_cache().root == tmp_path / "asr-pipeline" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ModelFilesSettings().model_cache().root == tmp_path / ".cache/asr-pipeline/models"
    monkeypatch.setenv("ASR_MODEL_DIR", str(tmp_path / "elsewhere"))
    assert ModelFilesSettings().model_cache().root == tmp_path / "elsewhere"


def test_an_unknown_source_of_models_is_refused() -> None:
    with pytest.raises(ValidationError, match="'ftp' is none of openai"):
        ModelFilesSettings(asr_model_sources="openai,ftp")


def test_asr_workers_takes_precedence_over_min_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIN_WORKERS", "3")
    assert WorkerSettings(asr_model="fake:0ms").asr_workers == 3
    monkeypatch.setenv("ASR_WORKERS", "2")
    assert WorkerSettings(asr_model="fake:0ms").asr_workers == 2


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "CPU", "cuda: 0"])
def test_a_device_that_torch_does_not_name_is_refused(device: str) -> None:
    with pytest.raises(ValidationError):
        WorkerSettings(asr_model="fake:0ms", asr_device=device)


def test_several_models_have_names() -> None:
    assert served_models("zh=paraformer-zh, en = demo,x.1=fake:5ms") == {
        "zh": "paraformer-zh",
        "en": "demo",
        "x.1": "fake:5ms",
    }


def test_one_model_is_called_as_it_is_written() -> None:
    one = WorkerSettings(asr_model="iic/SenseVoiceSmall")
    assert one.served_models == {"iic/SenseVoiceSmall": "iic/SenseVoiceSmall"}
    named = WorkerSettings(asr_model="demo", asr_served_name="digits")
    assert named.served_models == {"digits": "demo"}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("demo", "'demo' is not name=model"),
        ("a=demo,", "'' is not name=model"),
        ("a b=demo", "'a b' is not a name of letters"),
        ("=demo", "'' is not a name of letters"),
        ("a=demo,a=fake:1ms", "the name 'a' is given twice"),
        ("a=", "a: it is empty"),
        ("a=/no/such/place", "a: no such model directory"),
    ],
)
def test_a_wrong_list_of_models_is_refused(entries: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WorkerSettings(asr_models=entries)


@pytest.mark.parametrize("other", ["asr_model", "asr_served_name"])
def test_one_model_and_several_are_not_given_together(other: str) -> None:
    with pytest.raises(ValidationError, match=f"set either ASR_MODELS or {other.upper()}"):
        WorkerSettings.model_validate({"asr_models": "a=demo", other: "demo"})


def test_an_online_model_beside_several_models_is_of_one_of_them() -> None:
    one = WorkerSettings(asr_model="fake:1ms", asr_online_model="paraformer-zh-streaming")
    assert one.online_models == {"fake:1ms": "paraformer-zh-streaming"}
    models = "zh=paraformer-zh,en=whisper-base"
    several = WorkerSettings(asr_models=models, asr_online_model="zh=paraformer-zh-streaming")
    assert several.online_models == {"zh": "paraformer-zh-streaming"}
    with pytest.raises(ValidationError, match="ASR_ONLINE_MODEL: ASR_MODELS has no 'de'"):
        WorkerSettings(asr_models=models, asr_online_model="de=paraformer-zh-streaming")
    with pytest.raises(ValidationError, match="is not name=model"):
        WorkerSettings(asr_models=models, asr_online_model="paraformer-zh-streaming")
    with pytest.raises(ValidationError, match="'demo' is not a streaming model"):
        WorkerSettings(asr_models=models, asr_online_model="zh=demo")


def test_an_empty_model_counts_as_not_set() -> None:
    several = WorkerSettings.model_validate({"asr_model": "", "asr_models": "a=demo"})
    assert several.served_models == {"a": "demo"}
    assert WorkerSettings(asr_model="").asr_model == DEFAULT_MODEL
