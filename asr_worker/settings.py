"""Settings of the recognition workers, see docs/settings.md."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Struct
from pydantic import AfterValidator, AliasChoices, Field, model_validator

from asr_worker.model_files.cache import ModelCache
from asr_worker.model_files.catalogue import DEFAULT_MODEL, model_named
from asr_worker.model_files.sources import DEFAULT_SOURCES, Source, parse_sources
from asr_worker.recognizer.protocol import BATCH_JOBS_MAX
from runtime.settings import BusSettings, FilePath, ProcessSettings, home_expanded

DEMO_MODEL_DIR = Path(__file__).parent / "models" / "demo"
FAKE = re.compile(
    r"fake:(?P<batch_ms>\d{1,6})ms(\+(?P<second_ms>\d{1,6})ms/s)?(\*(?P<jobs>[1-9]\d{0,2}))?"
)
"""Names of recognisers without a model: ``asr_worker.recognizer.fake`` explains them."""
RECOGNISERS = ("demo", "fake")
"""Kinds of sources that are recognisers only: no streaming, punctuation or speaker model."""
WORKERS_MAX = 64
"""Of each model."""


class ModelSource(Struct, frozen=True, kw_only=True):
    name: str
    """As the operator wrote it."""
    kind: Literal["demo", "directory", "named", "fake"]
    location: str
    """A directory, a model's name, or for ``fake`` its name, see ``FAKE``."""


def model_source(name: str) -> ModelSource:
    """Parse the model setting ``name``.

    An existing directory takes precedence over the model of the same name (``iic/x``).

    Raises:
        ValueError: if ``name`` is neither a model directory nor a model's name. The message is for
            the operator.
    """
    if name == "demo":
        _require_model(DEMO_MODEL_DIR)
        return ModelSource(name=name, kind="demo", location=str(DEMO_MODEL_DIR))
    if FAKE.fullmatch(name):
        return ModelSource(name=name, kind="fake", location=name)
    path = home_expanded(name)
    if not name:
        raise ValueError(f"it is empty; leave it unset for {DEFAULT_MODEL}")
    if path.is_dir() or path.is_absolute() or name.startswith((".", "~")):
        _require_model(path)
        return ModelSource(name=name, kind="directory", location=str(path.absolute()))
    return ModelSource(name=name, kind="named", location=model_named(name).name)


class NotPulledError(ValueError):
    """A model is not on this machine; workers fetch nothing. The message is for the operator."""


def _require_model(directory: Path) -> None:
    if not directory.is_dir():
        raise ValueError(f"no such model directory: {directory}")
    if not (directory / "config.yaml").is_file():
        raise ValueError(f"no config.yaml in {directory}: not a FunASR model directory")


def _refused_by(check: Callable[[str], object]) -> AfterValidator:
    """A text for which ``check`` raises ValueError is refused, unless it is empty."""

    def checked(value: str) -> str:
        if value:
            check(value)
        return value

    return AfterValidator(checked)


class ModelFilesSettings(ProcessSettings):
    """Where models are kept, and where they come from."""

    asr_model_dir: FilePath | None = None
    asr_model_sources: Annotated[str, _refused_by(parse_sources)] = DEFAULT_SOURCES

    def model_cache(self) -> ModelCache:
        cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return ModelCache(self.asr_model_dir or Path(cache_home) / "asr-pipeline" / "models")

    def model_directory(self, source: ModelSource) -> Path:
        """Return where the files of a model are. Raises ``NotPulledError``."""
        if source.kind != "named":
            return Path(source.location)
        cache = self.model_cache()
        found = cache.find(source.location)
        if found is None:
            raise NotPulledError(
                f"model {source.name!r} is not in {cache.root}: fetch it with "
                f"`asr models pull {source.name}`"
            )
        return found

    def model_sources(self) -> list[Source]:
        return parse_sources(self.asr_model_sources)


_SERVED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def served_models(entries: str) -> dict[str, str]:
    """Parse ``name=model,name=model``: the models by the names that sessions ask for.

    Raises:
        ValueError: if an entry, a name or a model is invalid, or a name is given twice. The
            message is for the operator.
    """
    models: dict[str, str] = {}
    for entry in entries.split(","):
        name, found, model = (part.strip() for part in entry.partition("="))
        if not found:
            raise ValueError(f"{entry.strip()!r} is not name=model")
        _require_served_name(name)
        if name in models:
            raise ValueError(f"the name {name!r} is given twice")
        try:
            model_source(model)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        models[name] = model
    return models


def _require_served_name(name: str) -> None:
    if not _SERVED_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of letters, digits, '.', '_' and '-'")


def _require_kind(kind: str, model: str) -> None:
    if model_source(model).kind in RECOGNISERS:
        raise ValueError(f"{model!r} is not a {kind} model")


ModelName = Annotated[str, _refused_by(model_source)]
ServedModels = Annotated[str, _refused_by(served_models)]
ServedName = Annotated[str, _refused_by(_require_served_name)]
PunctuationModel = Annotated[str, _refused_by(partial(_require_kind, "punctuation"))]
SpeakerModel = Annotated[str, _refused_by(partial(_require_kind, "speaker"))]


class WorkerSettings(ModelFilesSettings, BusSettings):
    connects_to = ("broker_backend",)
    asr_model: ModelName = DEFAULT_MODEL
    """``fake:50ms+10ms/s*8`` recognises nothing, for load tests: ``asr_worker.recognizer.fake``."""
    asr_models: ServedModels = ""
    asr_served_name: ServedName = ""
    asr_online_model: str = ""
    asr_punc_model: PunctuationModel = ""
    asr_spk_model: SpeakerModel = ""
    asr_device: Annotated[
        str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps|npu(:\d+)?|xpu(:\d+)?)$")
    ] = "auto"
    asr_precision: Literal["float32", "half", "int8"] = "float32"
    asr_threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Torch threads of each worker. One, because another worker gains more than another thread,
    and the other processes of a small machine need the other core."""
    asr_workers: Annotated[
        int | None,
        Field(ge=1, le=WORKERS_MAX, validation_alias=AliasChoices("ASR_WORKERS", "MIN_WORKERS")),
    ] = None
    """Of each model. Unset: as many as the machine has room for (``asr_worker.worker_count``)."""
    asr_batch_jobs_max: Annotated[int, Field(ge=1, le=BATCH_JOBS_MAX)] = 32
    asr_batch_audio_ms_max: Annotated[int, Field(ge=1_000, le=3_600_000)] = 64_000
    asr_hang_s: Annotated[float, Field(gt=0, le=3_600)] = 30.0

    def named_models(self) -> list[str]:
        """Names of the models that must be pulled before a worker starts."""
        asr = (*self.served_models.values(), *self.online_models.values())
        unique = dict.fromkeys(filter(None, (*asr, self.asr_punc_model, self.asr_spk_model)))
        return [name for name in unique if model_source(name).kind == "named"]

    @property
    def served_models(self) -> dict[str, str]:
        """The models of ``python -m asr_worker`` by the names that sessions ask for."""
        if self.asr_models:
            return served_models(self.asr_models)
        return {self.asr_served_name or self.asr_model: self.asr_model}

    @model_validator(mode="after")
    def _one_list_of_models(self) -> WorkerSettings:
        names = ("asr_model", "asr_served_name")
        given = [name.upper() for name in names if name in self.model_fields_set]
        if self.asr_models and given:
            raise ValueError(f"set either ASR_MODELS or {' and '.join(given)}")
        return self

    @property
    def online_models(self) -> dict[str, str]:
        """The streaming models beside some of ``served_models``, by the same names."""
        if not self.asr_online_model:
            return {}
        if self.asr_models:
            return served_models(self.asr_online_model)
        return dict.fromkeys(self.served_models, self.asr_online_model)

    @model_validator(mode="after")
    def _known_online_models(self) -> WorkerSettings:
        try:
            for name, model in self.online_models.items():
                if name not in self.served_models:
                    raise ValueError(f"ASR_MODELS has no {name!r}")
                _require_kind("streaming", model)
        except ValueError as error:
            raise ValueError(f"ASR_ONLINE_MODEL: {error}") from error
        return self
