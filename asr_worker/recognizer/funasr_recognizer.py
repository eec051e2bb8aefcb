"""Any FunASR model as a recogniser: utterances of many sessions in one ``generate`` call.

A batch that fails is halved until the faulty utterance is alone. Subclasses, one module for each
family, implement the differences of their models.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import structlog
from msgspec.structs import replace

from asr_worker.recognizer.protocol import (
    BATCH_JOBS_MAX,
    RECOGNITION_FAILED,
    Recognition,
    Utterance,
)
from wire.codec import ITEMS_MAX
from wire.languages import primary_language
from wire.messages import (
    BYTES_PER_SAMPLE,
    SAMPLE_RATE_HZ,
    Abilities,
    Failure,
    Token,
    pcm_duration_ms,
)
from wire.validation import TEXT_CHARS_MAX

UTTERANCE_MS_MIN = 85
"""One frame of FunASR's models: seven stacked windows of 25 ms, 10 ms apart. Shorter audio holds
no word, and some models fail on it; its text is empty."""
BATCH_FAILURES_MAX = 8
"""Consecutive batches that fail although each utterance succeeds alone; then batching ends."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_HAN, _WORD = re.compile("[\u4e00-\u9fff]"), re.compile("[a-z]{2,}(@@)?")
_BESIDE_CJK = re.compile(f"(?<=[{_CJK}]) +| +(?=[{_CJK}])")

Samples = npt.NDArray[np.float32]
Options = tuple[tuple[str, Any], ...]
"""Keyword arguments of ``generate``. Hashable: utterances with equal options share a call."""


class FunasrRecognizer:
    """A ``funasr.AutoModel`` as a ``Recognizer``."""

    modules: ClassVar[tuple[str, ...]] = ()
    """The FunASR modules that register the family's classes; empty: import all of FunASR."""
    can: ClassVar[Abilities] = Abilities()
    """Abilities of all models of the family. An argument that these ignore is not passed, so that
    more utterances share a call."""
    batches: ClassVar[bool | None] = None
    """Whether utterances can share a call without changing their texts; None: to be tried."""
    fixed_options: ClassVar[Options] = ()
    """Passed with every utterance."""

    def __init__(self, auto: Any, *, model: str, device: str) -> None:
        self.model = model
        self.device = device
        self._auto = auto
        self.abilities = self.found_abilities(self.can)
        if self.batches is not False:
            self.abilities = replace(self.abilities, batch_jobs=BATCH_JOBS_MAX)
        self._failed_batches = 0
        """Consecutive, although their utterances succeeded alone."""
        self._succeeded_batches = 0

    @classmethod
    def prepare(cls) -> None:
        """Called once FunASR is imported, before the model's first use."""

    def found_abilities(self, family: Abilities) -> Abilities:
        """Return the abilities of the loaded model, from ``family``'s and from its tokenizer."""
        return replace(family, languages=family.languages or _languages(self._auto))

    def warm_up(self) -> None:
        """Recognise faint noise. Reveals a model that cannot process batches, if its family does
        not say so. Raises any exception of FunASR; ValueError if the model returns no text."""
        noise = np.random.default_rng(0).normal(0.0, 30.0, 2 * SAMPLE_RATE_HZ).astype("<i2")
        batch = [Utterance(pcm=noise[:end].tobytes()) for end in (SAMPLE_RATE_HZ, len(noise))]
        options = self._options(batch[0])
        alone = [_texts(self._generate([each], options)) for each in batch]
        if self.batches is not None:
            return
        try:
            together = _texts(self._generate(batch, options))
        except Exception as error:
            self._stop_batching(type(error).__name__)
            return
        if any(alone) and together != [text for texts in alone for text in texts]:
            self._stop_batching("other texts in a batch")

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        """See ``Recognizer``. Utterances with different options are separate calls."""
        recognitions = [Recognition(text="")] * len(utterances)
        groups: defaultdict[Options, list[int]] = defaultdict(list)
        for index, utterance in enumerate(utterances):
            if pcm_duration_ms(utterance.pcm) >= UTTERANCE_MS_MIN:
                groups[self._options(utterance)].append(index)
        for options, indices in groups.items():
            # Longest last: some of FunASR's predictors fail if the last of a batch has no token,
            # which is more likely for a short one.
            indices.sort(key=lambda index: len(utterances[index].pcm))
            found = self._recognize_alike([utterances[index] for index in indices], options)
            for index, recognition in zip(indices, found, strict=True):
                recognitions[index] = recognition
        return recognitions

    def _options(self, utterance: Utterance) -> Options:
        options = list(self.fixed_options)
        code, languages = language_code(utterance.language), self.abilities.languages
        if self.abilities.takes_language and code and (not languages or code in languages):
            options += self.language_options(code)
        if utterance.hotwords and self.abilities.hotwords != "none":
            options += self.hotword_options(utterance.hotwords)
        return (*options, *self.form_options(utterance))

    def language_options(self, code: str) -> Options:
        return (("language", code),)

    def hotword_options(self, hotwords: tuple[str, ...]) -> Options:
        # FunASR fetches hotwords "http://…", and reads or ignores those that end like a file's
        # name. Between spaces the client's words are only words.
        return (("hotword", f" {' '.join(hotwords)} "),)

    def audio(self, utterance: Utterance) -> Any:
        """Return the audio as ``generate`` takes it."""
        return samples_of(utterance.pcm)

    def form_options(self, _utterance: Utterance) -> Options:
        """For the written form: punctuation, numbers."""
        return ()

    def _recognize_alike(self, batch: list[Utterance], options: Options) -> list[Recognition]:
        """Recognise ``batch`` in one call if possible, else in halves, down to one utterance."""
        if len(batch) > 1 and self.abilities.batch_jobs == 1:
            return self._one_by_one(batch, options)
        try:
            found = self._generate(batch, options)
        except Exception as error:
            if len(batch) == 1:
                return [_failed(error)]
            if isinstance(error, NotImplementedError):
                self._stop_batching("not implemented by the model")
                return self._one_by_one(batch, options)
            return self._recognize_halves(batch, options, error)
        if len(found) == len(batch):
            self._succeeded_batches += len(batch) > 1
            return list(map(self._recognition, found, batch))
        if len(batch) > 1:
            # Paraformer returns one result for a batch without any token: batching goes on then.
            recognitions = self._one_by_one(batch, options)
            if any(recognition.text for recognition in recognitions):
                self._stop_batching("wrong number of results")
            return recognitions
        if not found:  # SeacoParaformer's answer to audio without a token, such as a cough.
            return [Recognition(text="")]
        return [_failed(ValueError(f"{len(found)} results for one utterance"))]

    def _one_by_one(self, batch: list[Utterance], options: Options) -> list[Recognition]:
        return [self._recognize_alike([utterance], options)[0] for utterance in batch]

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
        elif self.abilities.batch_jobs > 1 and all(each.failure is None for each in found):
            self._failed_batches += 1
            if self._failed_batches >= BATCH_FAILURES_MAX:
                self._stop_batching(type(error).__name__)
        return found

    def _stop_batching(self, reason: str) -> None:
        self.abilities = replace(self.abilities, batch_jobs=1)
        structlog.get_logger().warning("model_cannot_batch", model=self.model, reason=reason)

    def _generate(self, batch: list[Utterance], options: Options) -> list[dict[str, Any]]:
        audio = [self.audio(utterance) for utterance in batch]
        # On a CPU AutoModel sets batch_size to 1 when loading; this call overrides it.
        found: list[dict[str, Any]] = self._auto.generate(
            input=audio, batch_size=len(audio), disable_pbar=True, **dict(options)
        )
        return found

    def _recognition(self, result: dict[str, Any], utterance: Utterance) -> Recognition:
        text, words, times = self.text_and_words(result)
        tokens = _tokens(words, times, pcm_duration_ms(utterance.pcm))
        if len(text) > TEXT_CHARS_MAX or len(tokens) > ITEMS_MAX:
            return _failed(ValueError("the text exceeds the limits of a message"))
        return Recognition(text=text.strip(), tokens=tokens, **self.found_beside_the_text(result))

    def found_beside_the_text(self, _result: dict[str, Any]) -> dict[str, Any]:
        """Return further fields of the ``Recognition``, such as the detected language."""
        return {}

    def text_and_words(self, result: dict[str, Any]) -> tuple[str, list[str], Any]:
        """Return the text of FunASR's ``result`` as people write it, the words that have times, and
        start and end of each in ms; None without times."""
        raw = str(result.get("text", ""))
        if "timestamp" not in result:
            return raw, [], None
        # With times, FunASR puts a space between all words, Chinese characters included. The text
        # must not depend on whether times were requested.
        words = list(result.get("words") or raw.split())
        return _BESIDE_CJK.sub("", raw), words, result["timestamp"]


def _texts(results: list[dict[str, Any]]) -> list[str]:
    """Return the texts that are not empty.

    Raises:
        ValueError: a result has no text, such as that of a speaker model.
    """
    if any("text" not in result for result in results):
        raise ValueError("it returns no text")
    return [result["text"] for result in results if result["text"]]


def in_a_prompt(hotwords: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``hotwords`` without the signs of a language model's commands, such as ``<|im_end|>``.
    FunASR would even open a file that they name."""
    return tuple(re.sub("[<|>]", "", hotword) for hotword in hotwords)


def language_code(language: str) -> str:
    """Return the code of a client's language: ``zh`` for ``zh-CN``; empty for ``auto``."""
    code = primary_language(language)
    return "" if code == "auto" else code


def _languages(auto: Any) -> tuple[str, ...]:
    """Return the languages that follow from a tokenizer of characters and words; empty: unknown."""
    tokens = getattr(getattr(auto, "kwargs", {}).get("tokenizer"), "token_list", None)
    if not isinstance(tokens, list | tuple) or not any(_HAN.fullmatch(t) for t in tokens):
        return ()
    return ("zh", "en") if any(_WORD.fullmatch(token) for token in tokens) else ("zh",)


def samples_of(pcm: bytes) -> Samples:
    """Shape ``(samples,)``, values from −1 to 1."""
    samples = np.frombuffer(pcm, "<i2", count=len(pcm) // BYTES_PER_SAMPLE)
    return samples.astype(np.float32) / np.float32(32768)


def _tokens(words: list[str], times: Any, duration_ms: int) -> tuple[Token, ...]:
    """Return the words with their times; empty if FunASR's times do not match the words."""
    if not isinstance(times, list) or len(times) != len(words):
        return ()
    tokens = []
    # FunASR shifts times back by a constant, so the first may be negative.
    for word, (start, end) in zip(words, times, strict=True):
        start_ms = min(max(int(start), 0), duration_ms)
        end_ms = min(max(int(end), start_ms), duration_ms)
        tokens.append(Token(text=word, start_ms=start_ms, end_ms=end_ms))
    return tuple(tokens)


def _failed(error: Exception) -> Recognition:
    structlog.get_logger().warning("recognition_failed", error=type(error).__name__)
    message = f"the model failed on this utterance ({type(error).__name__})"
    failure = Failure(code=RECOGNITION_FAILED, message=message)
    return Recognition(text=None, failure=failure)
