"""Importing FunASR and building its models: quickly, quietly, and repaired where needed.

``import funasr`` imports all of its ~400 modules to register their classes, and transformers,
sklearn and numba with them: 7 s here. A model directory names the classes it needs, so only the
modules that register those are imported: 2 s, which is also how long a crashed worker is missing.
FunASR's own way is the fallback whenever that does not suffice.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import logging
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog
import torch
from omegaconf import OmegaConf

_REGISTRATION = re.compile(r'@tables\.register\(\s*"(\w+)",\s*"([^"]+)"\s*\)')
_TRAINING_TABLES = frozenset(
    {"dataset_classes", "index_ds_classes", "batch_sampler_classes", "dataloader_classes"}
)
_DIARIZATION = "funasr.models.campplus.utils"
"""AutoModel imports it, and sklearn with it (1 s), but goes on without."""


def auto_model(directory: Path | None, **arguments: Any) -> Any:
    """``funasr.AutoModel(**arguments)``; ``directory`` is where the model lies, None for a hub.

    Raises:
        Exception: whatever FunASR raises; it has no exception of its own.
    """
    with _quiet() as printed:
        try:
            return _auto_model(directory, arguments)
        except Exception as error:
            # FunASR prints why a download failed, goes on, and then fails for another reason.
            for line in printed.getvalue().splitlines():
                if line.startswith("Download:"):
                    raise ConnectionError(line) from error
            raise


def _auto_model(directory: Path | None, arguments: dict[str, Any]) -> Any:
    if directory is None:
        return _all_of_funasr().AutoModel(**arguments)
    _needed_of_funasr(directory)
    try:
        return importlib.import_module("funasr.auto.auto_model").AutoModel(**arguments)
    except Exception as error:
        structlog.get_logger().info("funasr_full_import", reason=type(error).__name__)
        return _all_of_funasr().AutoModel(**arguments)


def import_bare_funasr() -> None:
    """``import funasr`` without its own import of all its modules; those imported later register
    their classes as always."""
    if "funasr" not in sys.modules:
        with _quiet(), _patched(pkgutil, "walk_packages", lambda *_args, **_kwargs: iter(())):
            importlib.import_module("funasr")


def repair_batching(auto: Any) -> None:
    """Make batched results of Paraformer's CIF predictor equal to those one by one.

    Two things in FunASR 1.4 make them differ:

    * The predictor's convolution looks one frame ahead. Alone, that frame is zero at the end; in
      a batch it is what the encoder made of padding, which changes the last frame's weight and
      now and then the number of tokens. With the padding zeroed both are equal.
    * ``cif_v1`` fails with an IndexError if the last of a batch, such as silence, has no token.
      A row with one token behind it, dropped afterwards, avoids that.

    A single utterance has neither padding nor a last row besides itself: its result stays
    FunASR's own.
    """
    predictor: Any = getattr(auto.model, "predictor", None)
    if type(predictor).__name__ not in ("CifPredictorV2", "CifPredictorV3"):
        return
    module: Any = sys.modules[type(predictor).__module__]
    if hasattr(module, "cif_v1") and not hasattr(module.cif_v1, "__wrapped__"):
        module.cif_v1 = _with_guard_row(module.cif_v1)
    predictor.register_forward_pre_hook(_zero_padding)


def _zero_padding(_predictor: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden, target, mask, *rest = arguments
    return (hidden * mask.transpose(1, 2), target, mask, *rest)


def _with_guard_row(cif: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(cif)
    def guarded(hidden: Any, alphas: Any, threshold: float) -> Any:
        if len(alphas) == 1 or float(alphas[-1].sum()) >= threshold:
            return cif(hidden, alphas, threshold)
        guard = alphas.new_zeros(1, alphas.shape[1])
        guard[0, 0] = threshold
        row = hidden.new_zeros(1, *hidden.shape[1:])
        guarded_hidden, guarded_alphas = torch.cat([hidden, row]), torch.cat([alphas, guard])
        embeddings, fires = cif(guarded_hidden, guarded_alphas, threshold)
        return embeddings[:-1], fires[:-1]

    return guarded


def silence_funasr_logs() -> None:
    """FunASR logs to the root logger, hotwords included; what clients say is not for logs."""

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or "/funasr/" not in record.pathname

    for handler in logging.getLogger().handlers:
        handler.addFilter(from_elsewhere)


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """What is printed meanwhile; it goes to the debug log instead of stdout. Warnings about
    FunASR's code go nowhere."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield printed
        finally:
            for line in printed.getvalue().splitlines():
                structlog.get_logger().debug("funasr_notice", line=line)


def _all_of_funasr() -> Any:
    if "funasr" in sys.modules:
        funasr = sys.modules["funasr"]
        funasr.import_submodules("funasr")
        return funasr
    return importlib.import_module("funasr")


def _needed_of_funasr(directory: Path) -> None:
    """Import the modules that register the classes named in ``directory``'s configuration."""
    import_bare_funasr()
    with _absent(_DIARIZATION):
        importlib.import_module("funasr.auto.auto_model")
    configuration = OmegaConf.load(directory / "config.yaml")
    modules = _modules_registering(set(_names(OmegaConf.to_container(configuration))))
    if modules is None:
        _all_of_funasr()
        return
    for module in modules:
        # A module that can't be imported registers nothing; AutoModel then says what is missing.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def _modules_registering(names: set[str]) -> list[str] | None:
    """Modules that register classes under ``names``, found without importing them.

    None if different modules register the same name: then the order of FunASR's own import
    decides which class wins, and only that import gives it.
    """
    spec = importlib.util.find_spec("funasr")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    sources: dict[tuple[str, str], str] = {}
    modules = []
    for path in sorted(root.rglob("*.py")):
        source = path.read_text("utf-8", errors="replace")
        registered = {
            (table, name)
            for table, name in _REGISTRATION.findall(source)
            if name in names and table not in _TRAINING_TABLES
        }
        if registered:
            module = path.relative_to(root.parent).with_suffix("")
            modules.append(".".join(module.parts))
        for key in registered:
            # paraformer/decoder.py and e_paraformer/decoder.py are copies: either will do.
            if sources.setdefault(key, source) != source:
                return None
    return modules


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _names(value)


@contextlib.contextmanager
def _patched(holder: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, original)


@contextlib.contextmanager
def _absent(module: str) -> Iterator[None]:
    """Inside, importing ``module`` raises ImportError, if it was not imported before."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
