"""Load a FunASR model: device, import, weights, repairs. A new family is a module and a line of
``FAMILIES``."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import structlog
from omegaconf import OmegaConf

from asr_worker.recognizer import features, funasr_repairs, packed_encoder, precision
from asr_worker.recognizer.beam_search import BeamSearch
from asr_worker.recognizer.fun_asr_nano import FunAsrNano
from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer
from asr_worker.recognizer.load_errors import load_error
from asr_worker.recognizer.paraformer import (
    BiCifParaformer,
    ContextualParaformer,
    Paraformer,
    SeacoParaformer,
)
from asr_worker.recognizer.paraformer_streaming import ParaformerStreaming
from asr_worker.recognizer.protocol import ModelLoadError
from asr_worker.recognizer.punctuation import Punctuator
from asr_worker.recognizer.qwen_asr import QwenAsr
from asr_worker.recognizer.sense_voice import SenseVoice
from asr_worker.recognizer.speaker_embedding import SpeakerEmbedder
from asr_worker.recognizer.whisper import Whisper
from asr_worker.recognizer.written_form import WrittenForm
from asr_worker.settings import ModelSource, NotPulledError, WorkerSettings, model_source

FAMILIES: dict[str, type[FunasrRecognizer]] = {
    "BiCifParaformer": BiCifParaformer,
    "Branchformer": BeamSearch,
    "Conformer": BeamSearch,
    "ContextualParaformer": ContextualParaformer,
    "EBranchformer": BeamSearch,
    "FunASRNano": FunAsrNano,
    "Paraformer": Paraformer,
    "ParaformerStreaming": ParaformerStreaming,
    "Qwen3ASR": QwenAsr,
    "SANM": BeamSearch,
    "SeacoParaformer": SeacoParaformer,
    "SenseVoiceSmall": SenseVoice,
    "Transformer": BeamSearch,
    "UniASR": BeamSearch,
    "WhisperWarp": Whisper,
}
"""Recognisers by the name of the model's class in FunASR; other classes get a FunasrRecognizer."""

WEIGHTS = frozenset({".bin", ".onnx", ".pb", ".pt", ".pth", ".safetensors"})
"""Suffixes of files with weights."""


def load(settings: WorkerSettings, source: ModelSource) -> WrittenForm:
    """Load the model of ``source``. Use the result only on the calling thread.

    Raises:
        ModelLoadError: if the model cannot be loaded or its device is not available.
    """
    started_s = time.monotonic()
    funasr_repairs.silence_logs()
    device = precision.available_device(settings.asr_device)
    auto = _load_model(settings, source, device)
    model_class = type(auto.model).__name__
    family = FAMILIES.get(model_class, FunasrRecognizer)
    family.prepare()
    repairs = funasr_repairs.repair_batching(auto.model)
    precision.apply(auto.model, settings.asr_precision, device)
    funasr_repairs.restore_configuration(auto)
    frontend = auto.kwargs.get("frontend")
    if hasattr(frontend, "dither"):
        # FunASR's default adds noise, so texts would differ from call to call.
        frontend.dither = 0.0
    accelerated = features.accelerate(frontend)
    packed = packed_encoder.accelerate(getattr(auto.model, "encoder", None), device)
    recognizer = family(auto, model=source.name, device=device)
    try:
        recognizer.warm_up()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        message = f"model {source.name!r} ({model_class}) recognises no speech: {reason}"
        raise ModelLoadError(message, final=True) from error
    punctuator = None
    if name := settings.asr_punc_model:
        punctuator = Punctuator(_load_model(settings, model_source(name), device))
    log = structlog.get_logger()
    log.info(
        "model_loaded",
        model=source.name,
        model_class=model_class,
        device=device,
        precision=settings.asr_precision,
        load_s=round(time.monotonic() - started_s, 2),
        batched_features=accelerated,
        packed_encoder=packed,
        funasr_repairs=repairs,
    )
    if source.kind == "demo":
        log.warning("demo_model", note="recognises spoken digits only, in Mandarin and English")
    return WrittenForm(recognizer, punctuator)


def load_embedder(settings: WorkerSettings) -> SpeakerEmbedder:
    """Load the speaker model, as ``load``. Raises ModelLoadError also if it is no speaker model."""
    funasr_repairs.silence_logs()
    device = precision.available_device(settings.asr_device)
    source = model_source(settings.asr_spk_model)
    return SpeakerEmbedder(_load_model(settings, source, device), source.name)


def auto_model(directory: Path, **arguments: Any) -> Any:
    """Return ``funasr.AutoModel(**arguments)`` of the model in ``directory``. Raises any exception
    of FunASR, which has no type of its own."""
    arguments["model"] = str(directory)
    if not any(file.suffix in WEIGHTS for file in directory.rglob("*")):
        # FunASR would continue with random weights.
        raise FileNotFoundError(errno.ENOENT, "no weights", f"no weights in {directory}")
    with funasr_repairs.quiet():
        if modules := _modules_of(directory):
            try:
                return funasr_repairs.import_modules(modules).AutoModel(**arguments)
            except Exception as error:
                # FunASR's own modules may move. If another package is missing, ``import_all`` would
                # hide that and fail for another reason.
                name = error.name if isinstance(error, ModuleNotFoundError) else "funasr"
                if not str(name).startswith("funasr"):
                    raise
                structlog.get_logger().info("funasr_full_import", reason=type(error).__name__)
        return funasr_repairs.import_all().AutoModel(**arguments)


def _modules_of(directory: Path) -> tuple[str, ...]:
    """The FunASR modules that the model in ``directory`` needs; empty if unknown."""
    beside = {each.model_class: each.modules for each in (Punctuator, SpeakerEmbedder)}
    model_class = OmegaConf.load(directory / "config.yaml").get("model")
    return beside.get(model_class, FAMILIES.get(model_class, FunasrRecognizer).modules)


def _load_model(settings: WorkerSettings, source: ModelSource, device: str) -> Any:
    try:
        return auto_model(
            settings.model_directory(source),
            device=device,
            ncpu=settings.asr_threads,
            disable_update=True,
            disable_pbar=True,
            disable_log=True,
        )
    except NotPulledError as error:
        raise ModelLoadError(str(error), final=True) from None
    except Exception as error:
        raise load_error(source, error) from error
