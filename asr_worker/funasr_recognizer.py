"""The FunASR recogniser: any FunASR model, utterances of any sessions in one ``generate`` call.

Models differ in what they take. What is wrong with a batch is found by halving it until the
utterance that fails stands alone; a model that can't take batches at all is remembered.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog
import torch

from asr_worker import convolutions, features, funasr_loading, linear_layers, token_times
from asr_worker.recognizer import RECOGNITION_FAILED, ModelLoadError, Recognition, Utterance
from asr_worker.settings import ModelSource, WorkerSettings, model_source
from wire.codec import ITEMS_MAX
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, Failure, Token, pcm_duration_ms
from wire.validation import TEXT_CHARS_MAX

UTTERANCE_MS_MIN = 85
"""One frame of FunASR's models: seven stacked windows of 25 ms, 10 ms apart. What is shorter
holds no word, and some models fail on it; its text is empty."""
BATCH_FAILURES_MAX = 8
"""Batches in a row that fail although each of their utterances succeeds alone: from then on the
model gets one utterance at a time."""

_IGNORES_LANGUAGE = frozenset({"Paraformer", "BiCifParaformer", "ContextualParaformer"})
_IGNORES_HOTWORDS = frozenset({"Paraformer", "BiCifParaformer", "SenseVoiceSmall"})
"""Known to ignore the argument: such requests may share a call. Others are given it."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_BESIDE_CJK = re.compile(f"(?<=[{_CJK}]) +| +(?=[{_CJK}])")

Samples = npt.NDArray[np.float32]
Options = tuple[tuple[str, Any], ...]
"""Keyword arguments of ``generate``, hashable, so that equal ones can share a call."""

_ALWAYS: dict[str, Options] = {
    "Paraformer": (("pred_timestamp", True),),
    "SenseVoiceSmall": (("use_itn", True),),
}
"""What a model is asked for whatever the request: times, and what FunASR's documentation
recommends."""


def load(settings: WorkerSettings, source: ModelSource) -> FunasrRecognizer:
    """The model of ``source``, loaded; belongs to the calling thread.

    Raises:
        ModelLoadError: if the model or its device is not to be had.
    """
    started_s = time.monotonic()
    funasr_loading.silence_funasr_logs()
    _require_device(settings.asr_device)
    auto = _load_model(settings, source)
    funasr_loading.repair_batching(auto)
    token_times.install()
    _warm_up(auto)
    # Only now: AutoModel's first call replaces its frontend by the copy that it keeps.
    features.accelerate(auto.kwargs.get("frontend"))
    linear_layers.accelerate(auto.model)
    convolutions.fill_up(auto.model)
    punctuator = None
    if settings.asr_punc_model:
        punctuator = _load_model(settings, model_source(settings.asr_punc_model))
    log = structlog.get_logger()
    log.info(
        "model_loaded",
        model=source.name,
        model_class=type(auto.model).__name__,
        device=settings.asr_device,
        load_s=round(time.monotonic() - started_s, 2),
    )
    if source.kind == "demo":
        log.warning("demo_model", note="it knows spoken digits only, Mandarin and English")
    return FunasrRecognizer(auto, punctuator, model=source.name, device=settings.asr_device)


def _require_device(device: str) -> None:
    """FunASR silently falls back to the CPU; an operator who asked for a GPU must know."""
    backend = device.partition(":")[0]
    if backend != "cpu":
        with contextlib.suppress(RuntimeError, AssertionError, AttributeError):
            torch.empty(1, device=device)
            return
        raise ModelLoadError(f"ASR_DEVICE: {device} is not available on this machine", final=True)


def _load_model(settings: WorkerSettings, source: ModelSource) -> Any:
    try:
        return funasr_loading.auto_model(
            None if source.kind == "hub" else Path(source.location),
            model=source.location,
            device=settings.asr_device,
            ncpu=settings.asr_threads,
            disable_update=True,
            disable_pbar=True,
            disable_log=True,
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        # A hub may be out of reach for a while; a directory stays as it is.
        is_hub = source.kind == "hub"
        message = f"model {source.name!r} can't be loaded: {reason}"
        raise ModelLoadError(message, final=not is_hub) from error


def _warm_up(auto: Any) -> None:
    """One second of faint noise: the first call allocates, and shows a model that can't run."""
    noise = np.random.default_rng(0).normal(0.0, 1e-3, SAMPLE_RATE_HZ).astype(np.float32)
    try:
        auto.generate(input=[noise], batch_size=1, disable_pbar=True)
    except Exception as error:
        reason = type(error).__name__
        structlog.get_logger().warning("warm_up_failed", reason=reason)


class FunasrRecognizer:
    """A ``funasr.AutoModel`` and, if given, another one for punctuation, as a ``Recognizer``."""

    def __init__(self, auto: Any, punctuator: Any | None, *, model: str, device: str) -> None:
        self.model = model
        self.device = device
        self.can_batch = True
        self._auto = auto
        self._punctuator = punctuator
        self._kind = type(auto.model).__name__
        self._failed_batches = 0
        """In a row, although their utterances succeeded alone."""
        self._succeeded_batches = 0

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        """See ``Recognizer``. Utterances with different options are different calls."""
        recognitions = [Recognition(text="")] * len(utterances)
        groups: defaultdict[Options, list[int]] = defaultdict(list)
        for index, utterance in enumerate(utterances):
            if pcm_duration_ms(utterance.pcm) >= UTTERANCE_MS_MIN:
                groups[self._options(utterance)].append(index)
        for options, indices in groups.items():
            # Longest last: some of FunASR's predictors fail if the last of a batch has no token
            # at all, which is likelier for a short one.
            indices.sort(key=lambda index: len(utterances[index].pcm))
            found = self._recognize_alike([utterances[index] for index in indices], options)
            for index, recognition in zip(indices, found, strict=True):
                recognitions[index] = recognition
        return recognitions

    def _options(self, utterance: Utterance) -> Options:
        options = list(_ALWAYS.get(self._kind, ()))
        if utterance.language and self._kind not in _IGNORES_LANGUAGE:
            options.append(("language", utterance.language))
        if utterance.hotwords and self._kind not in _IGNORES_HOTWORDS:
            # Given "http://…" or a path, FunASR would fetch or read it; a leading space makes the
            # client's words nothing but words.
            options.append(("hotword", " " + " ".join(utterance.hotwords)))
            options.append(("hotwords", utterance.hotwords))
        return tuple(options)

    def _recognize_alike(self, batch: list[Utterance], options: Options) -> list[Recognition]:
        """All of ``batch`` in one call if the model can, else by halves, at last one by one."""
        if len(batch) > 1 and not self.can_batch:
            return [self._recognize_alike([utterance], options)[0] for utterance in batch]
        try:
            found = self._generate(batch, options)
        except NotImplementedError as error:
            if len(batch) == 1:
                return [_failed(error)]
            self._stop_batching("not implemented by the model")
            return self._recognize_alike(batch, options)
        except Exception as error:
            if len(batch) == 1:
                return [_failed(error)]
            return self._recognize_halves(batch, options, error)
        if len(found) == len(batch):
            self._succeeded_batches += len(batch) > 1
            return [
                self._recognition(result, utterance)
                for result, utterance in zip(found, batch, strict=True)
            ]
        if len(batch) == 1:
            return [_failed(ValueError(f"{len(found)} results for one utterance"))]
        return self._recognize_miscounted(batch, options)

    def _recognize_halves(
        self, batch: list[Utterance], options: Options, error: Exception
    ) -> list[Recognition]:
        succeeded = self._succeeded_batches
        middle = len(batch) // 2
        found = self._recognize_alike(batch[:middle], options)
        found += self._recognize_alike(batch[middle:], options)
        structlog.get_logger().info("batch_halved", size=len(batch), reason=type(error).__name__)
        if self._succeeded_batches > succeeded:
            self._failed_batches = 0
        elif self.can_batch and all(recognition.failure is None for recognition in found):
            self._failed_batches += 1
            if self._failed_batches >= BATCH_FAILURES_MAX:
                self._stop_batching(type(error).__name__)
        return found

    def _recognize_miscounted(self, batch: list[Utterance], options: Options) -> list[Recognition]:
        """The model gave fewer or more results than utterances. Paraformer gives a single one for
        a batch without any token, which is no reason to stop batching."""
        found = [self._recognize_alike([utterance], options)[0] for utterance in batch]
        if any(recognition.text for recognition in found):
            self._stop_batching("wrong number of results")
        return found

    def _stop_batching(self, reason: str) -> None:
        self.can_batch = False
        structlog.get_logger().warning("model_cannot_batch", model=self.model, reason=reason)

    def _generate(self, batch: list[Utterance], options: Options) -> list[dict[str, Any]]:
        samples = [_samples(utterance.pcm) for utterance in batch]
        # On a CPU AutoModel sets batch_size 1 when loading; given here, it counts.
        found: list[dict[str, Any]] = self._auto.generate(
            input=samples, batch_size=len(samples), disable_pbar=True, **dict(options)
        )
        return found

    def _recognition(self, result: dict[str, Any], utterance: Utterance) -> Recognition:
        text, words = _text_and_words(result)
        tokens = _tokens(words, result.get("timestamp"), pcm_duration_ms(utterance.pcm))
        if self._punctuator is not None and text:
            try:
                text = self._punctuator.generate(input=[text])[0]["text"]
            except Exception as error:
                return _failed(error)
        if len(text) > TEXT_CHARS_MAX or len(tokens) > ITEMS_MAX:
            return _failed(ValueError("a text longer than a message may be"))
        return Recognition(text=text.strip(), tokens=tokens)


def _samples(pcm: bytes) -> Samples:
    """Shape ``(samples,)``, from −1 to 1."""
    whole = len(pcm) - len(pcm) % BYTES_PER_SAMPLE
    return np.frombuffer(pcm[:whole], "<i2").astype(np.float32) / np.float32(32768)


def _text_and_words(result: dict[str, Any]) -> tuple[str, list[str]]:
    """The result's text as people write it, and the words that its times belong to."""
    raw = str(result.get("text", ""))
    if "<|" in raw:
        from funasr.utils.postprocess_utils import rich_transcription_postprocess

        return rich_transcription_postprocess(raw), list(result.get("words") or ())
    if "timestamp" not in result:
        return raw, []
    # With times FunASR puts a space between all words, Chinese characters included; without, none
    # next to a Chinese character. The text must not depend on whether times were asked for.
    return _BESIDE_CJK.sub("", raw), list(result.get("words") or raw.split())


def _tokens(words: list[str], times: Any, duration_ms: int) -> tuple[Token, ...]:
    """Words with their times; none if FunASR's times don't belong to these words one by one."""
    if not isinstance(times, list) or not words or len(times) != len(words):
        return ()
    return tuple(_clipped(words, times, duration_ms))


def _clipped(words: list[str], times: list[Any], duration_ms: int) -> Iterator[Token]:
    # FunASR shifts times back by a constant, so that the first may be negative.
    for word, (start, end) in zip(words, times, strict=True):
        start_ms = min(max(int(start), 0), duration_ms)
        end_ms = min(max(int(end), start_ms), duration_ms)
        yield Token(text=word, start_ms=start_ms, end_ms=end_ms)


def _failed(error: Exception) -> Recognition:
    structlog.get_logger().warning("recognition_failed", error=type(error).__name__)
    message = f"the model failed on this utterance ({type(error).__name__})"
    return Recognition(text=None, failure=Failure(code=RECOGNITION_FAILED, message=message))
