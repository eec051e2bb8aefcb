"""Bring a model into the cache: fetched from the first source that has it, checked, converted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from asr_worker.model_files import sources
from asr_worker.model_files.cache import ModelCache
from asr_worker.model_files.catalogue import Form, HubModel, Model, WhisperModel, model_named
from asr_worker.model_files.download import NoSpaceError, Progress, SourceError
from asr_worker.model_files.sources import Source
from runtime import exit_codes


class PullError(Exception):
    """The model could not be fetched. The message is one line for the operator.

    ``code`` is ``exit_codes.UNAVAILABLE`` if a later try may succeed: a source did not answer, or
    the disk is full. Else it is ``exit_codes.CONFIG``.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def pull(name: str, cache: ModelCache, wanted: Sequence[Source], progress: Progress) -> Path:
    """Return the directory of the model ``name``, after fetching it unless it is there.

    Raises:
        UnknownModelError: if ``name`` is no model's name.
        PullError: if no source delivers the model.
    """
    model = model_named(name)
    if found := cache.find(name):
        return found
    try:
        with cache.locked(
            model, lambda: progress.step(f"waiting for another process that pulls {name}")
        ) as partial:
            # Another process may have pulled it meanwhile.
            if found := cache.find(name):
                return found
            made = _fetch(model, wanted, partial, progress)
            path = cache.install(model, made)
            shutil.rmtree(partial)
            return path
    except NoSpaceError as error:
        raise PullError(f"{name}: {error}", exit_codes.UNAVAILABLE) from error
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise PullError(f"ASR_MODEL_DIR: {reason}", exit_codes.UNAVAILABLE) from error


def _fetch(model: Model, wanted: Sequence[Source], partial: Path, progress: Progress) -> Path:
    failures: dict[str, SourceError] = {}
    for source in wanted:
        try:
            if isinstance(model, WhisperModel):
                made = _whisper(model, source, partial, progress)
            else:
                made = _repository(model, source, partial, progress)
        except SourceError as error:
            failures[source.name] = error
        else:
            if made is not None:
                return made
    if not failures:
        raise PullError(
            f"{model.name}: no entry of ASR_MODEL_SOURCES has this model", exit_codes.CONFIG
        )
    reasons = "; ".join(f"{source}: {error}" for source, error in failures.items())
    if all(error.is_missing for error in failures.values()):
        raise PullError(f"{model.name}: no such model ({reasons})", exit_codes.CONFIG)
    raise PullError(f"{model.name}: no source delivers it ({reasons})", exit_codes.UNAVAILABLE)


def _whisper(model: WhisperModel, source: Source, partial: Path, progress: Progress) -> Path | None:
    """Fetch the model and return its directory; None if the source has no such model."""
    for file in model.files:
        if file.source == source.name:
            progress.step(f"{model.name} from {source.name}")
            weights = sources.fetch_weights(source, file, partial, progress)
            progress.step(f"converting {model.name}")
            return _converted(model, weights, file.form, partial / "model")
    return None


def _converted(model: WhisperModel, path: Path, form: Form, made: Path) -> Path:
    # It imports torch, which takes seconds and 200 MB.
    from asr_worker.model_files import whisper_weights

    try:
        weights = whisper_weights.read(path, form)
    except whisper_weights.WeightsError as error:
        raise SourceError(str(error)) from error
    heads = whisper_weights.alignment_heads(model.size, weights.dimensions)
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    whisper_weights.write_funasr_directory(weights, made, heads)
    return made


def _repository(model: HubModel, source: Source, partial: Path, progress: Progress) -> Path | None:
    """Fetch the repository and return its directory; None if the source is no hub."""
    if source.name not in ("modelscope", "huggingface"):
        return None
    progress.step(f"{model.name} from {source.name}")
    made = partial / source.name
    sources.fetch_repository(source, model, made)
    return made
