"""The reason why a model cannot be loaded, in one line for the operator. FunASR and torch have no
exception types for this, so the messages distinguish the causes."""

from __future__ import annotations

import errno
import pickle
import re
import zipfile

import torch

from asr_worker.recognizer.protocol import ModelLoadError
from asr_worker.settings import ModelSource

_PACKAGES = {"whisper": "openai-whisper"}
"""Packages with another name than their module."""
_NOT_REGISTERED = re.compile(r"(\w+) '([^']+)' is not registered")
_NO_MEMORY = re.compile(r"can't allocate memory|out of memory", re.IGNORECASE)
_DAMAGED = re.compile(
    r"PytorchStreamReader|invalid magic number|unexpected EOF|central directory|Ran out of input"
)


def load_error(source: ModelSource, error: Exception) -> ModelLoadError:
    """Return the error to end the worker with. All but a lack of memory are final."""
    chain = _chain(error)
    texts = [str(each) for each in chain]
    if any(isinstance(each, MemoryError | torch.OutOfMemoryError) for each in chain) or any(
        isinstance(each, RuntimeError | OSError) and _NO_MEMORY.search(text)
        for each, text in zip(chain, texts, strict=True)
    ):
        reason = "there is not enough memory for it; fewer workers or a smaller model need less"
        return _error(source, reason, final=False)
    for each, text in zip(chain, texts, strict=True):
        if match := _NOT_REGISTERED.search(text):
            return _error(source, f"FunASR has no {match[1]} of the class {match[2]!r}")
        if isinstance(each, ModuleNotFoundError) and each.name:
            package = _PACKAGES.get(each.name, each.name)
            return _error(source, f"it needs the package {package!r}, which is not installed")
        if isinstance(each, FileNotFoundError) or getattr(each, "errno", 0) == errno.ENOENT:
            return _error(source, f"a file is missing: {getattr(each, 'filename', None) or text}")
        damaged = isinstance(each, EOFError | pickle.UnpicklingError | zipfile.BadZipFile)
        if damaged or _DAMAGED.search(text):
            again = f"`asr models rm {source.name}`, then pull it again"
            remedy = again if source.kind == "named" else "copy it again"
            return _error(source, f"its file of weights is damaged: {remedy}")
    return _error(source, f"{type(error).__name__}: {error}")


def _error(source: ModelSource, reason: str, *, final: bool = True) -> ModelLoadError:
    first_line = reason.strip().splitlines()[0]
    return ModelLoadError(f"model {source.name!r} can't be loaded: {first_line}", final=final)


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in found:
        found.append(seen)
        seen = seen.__cause__ or seen.__context__
    return found
