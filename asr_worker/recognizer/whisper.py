"""Whisper (Radford et al. 2022, arXiv:2212.04356), loaded by FunASR's class ``WhisperWarp``.

FunASR decodes one utterance at a time, as 30 s, without the requested language, and returns its
text alone. Here FunASR's network decodes batches of utterances of their own length, and its own
estimates decide which texts are speech.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
from msgspec.structs import replace
from opencc import OpenCC

from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer, Options, Samples, samples_of
from asr_worker.recognizer.protocol import Recognition, Utterance
from wire.languages import primary_language
from wire.messages import SAMPLE_RATE_HZ, Abilities, Token

DECODED_JOBS_MAX = 32
"""Most utterances that are decoded together."""
COMPRESSION_RATIO_MAX = 2.4
"""A text that compresses better repeats itself (openai/whisper, ``transcribe.py``)."""
LOGPROB_MIN = -1.0
"""Lowest average log probability of a credible text (the same source)."""
NO_SPEECH_MIN = 0.6
"""Lowest probability of no speech at which a text can be an invention (the same source) …"""
SILENCE_MIN = 0.9
LOGPROB_SHARE = 0.25
"""… and it is one if that probability, plus this share of the text's negated average log
probability, exceeds ``SILENCE_MIN``. Breaths, clicks, beeps and noise have 0.93 or more, short
words 0.83 or less."""
TEMPERATURES = (0.4, 0.8)
"""Tried in turn for an utterance whose text is not credible."""
AUDIO_S_MAX = 30
"""Longest input of the network. A longer utterance is cut …"""
CUT_S = 5
"""… at the quietest window of the last seconds before that limit …"""
CUT_WINDOW_MS = 100
"""… with windows of this duration."""

_LANGUAGE_CODES = {"jv": "jw", "nb": "no"}
"""Whisper's codes for those of BCP 47 that it lacks."""
_SCRIPTS = {"zh-hant": "s2t", "zh-tw": "s2tw", "zh-hk": "s2hk", "zh-mo": "s2hk"}
"""OpenCC's conversion for a requested language; other Chinese is simplified."""
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages without spaces between sentences."""


class Whisper(FunasrRecognizer):
    modules: ClassVar = (
        "funasr.models.whisper.model",
        "funasr.frontends.whisper_frontend",
        "funasr.tokenizer.whisper_tokenizer",
    )
    can: ClassVar = Abilities(word_times=True, punctuation=True)
    batches: ClassVar = True

    def __init__(self, auto: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(auto, *arguments, **options)
        # Imported late: workers of other models do without the package.
        from asr_worker.recognizer.whisper_network import SplicedWhisper

        heads = auto.kwargs.get("model_conf", {}).get("alignment_heads", ())
        self._network = SplicedWhisper(auto.model.model, heads)
        self.abilities = replace(
            self.abilities,
            languages=self._network.languages,
            takes_language=self._network.multilingual,
            detects_language=self._network.multilingual,
            batch_jobs=DECODED_JOBS_MAX,
        )

    def _options(self, utterance: Utterance) -> Options:
        """A language that the model does not know is detected; the session's ack warns of it."""
        language = primary_language(utterance.language)
        language = _LANGUAGE_CODES.get(language, language)
        if self.abilities.takes_language and language in self.abilities.languages:
            return (("language", language),)
        return ()

    def _generate(self, batch: list[Utterance], options: Options) -> list[dict[str, Any]]:
        pieces = [_pieces(samples_of(utterance.pcm)) for utterance in batch]
        waiting = [
            (samples, utterance.partial)
            for utterance, parts in zip(batch, pieces, strict=True)
            for samples in parts
        ]
        heard: list[dict[str, Any]] = []
        for begin in range(0, len(waiting), DECODED_JOBS_MAX):
            samples, partial = zip(*waiting[begin : begin + DECODED_JOBS_MAX], strict=True)
            heard += self._hear(samples, partial, dict(options).get("language"))
        remaining = iter(heard)
        return [_joined([(piece, next(remaining)) for piece in parts]) for parts in pieces]

    def _hear(
        self, batch: Sequence[Samples], partial: Sequence[bool], language: str | None
    ) -> list[dict[str, Any]]:
        """Decode utterances that the network takes at once. A ``partial`` result gets neither a
        second try nor times."""
        network = self._network
        encoded = network.encode(batch)
        results = network.decode(encoded, language)
        for index, result in enumerate(results):
            for temperature in () if partial[index] else TEMPERATURES:
                if _is_credible(results[index]) or _is_silence(results[index]):
                    break
                # Alone, so that the other utterances of a batch do not change the samples.
                alone = encoded.only([index])
                results[index] = network.decode(alone, result.language, temperature)[0]
        texts = ["" if _is_silence(result) else result.text for result in results]
        timed = [index for index, text in enumerate(texts) if text and not partial[index]]
        times = network.words(encoded.only(timed), [results[index] for index in timed])
        words = dict(zip(timed, times, strict=True))
        return [
            {
                "text": text,
                "words": words.get(index, []),
                "language": result.language,
                "confidence": min(1.0, math.exp(result.avg_logprob)),
            }
            for index, (text, result) in enumerate(zip(texts, results, strict=True))
        ]

    def _recognition(self, result: dict[str, Any], utterance: Utterance) -> Recognition:
        if not result["text"]:
            return Recognition(text="")
        text, tokens = result["text"], tuple(result["words"])
        if result["language"] == "zh":
            text, tokens = _in_script(text, tokens, utterance.language)
        found = {name: result[name] for name in ("language", "confidence")}
        return Recognition(text=text, tokens=tokens, **found)


def _is_credible(result: Any) -> bool:
    repeats = result.compression_ratio > COMPRESSION_RATIO_MAX
    return bool(not repeats and result.avg_logprob >= LOGPROB_MIN)


def _is_silence(result: Any) -> bool:
    score = result.no_speech_prob - LOGPROB_SHARE * result.avg_logprob
    return bool(result.no_speech_prob > NO_SPEECH_MIN and score > SILENCE_MIN)


def _pieces(samples: Samples) -> list[Samples]:
    """Cut an utterance that is longer than the network takes."""
    pieces = []
    longest, window = AUDIO_S_MAX * SAMPLE_RATE_HZ, CUT_WINDOW_MS * SAMPLE_RATE_HZ // 1000
    while len(samples) > longest:
        begin = longest - CUT_S * SAMPLE_RATE_HZ
        energies = np.square(samples[begin:longest]).reshape(-1, window).sum(axis=1)
        cut = begin + int(energies.argmin()) * window + window // 2
        pieces.append(samples[:cut])
        samples = samples[cut:]
    return [*pieces, samples]


def _joined(heard: list[tuple[Samples, dict[str, Any]]]) -> dict[str, Any]:
    """Join the results of an utterance's pieces."""
    results = [result for _piece, result in heard if result["text"]]
    if len(heard) == 1 or not results:
        return heard[0][1]
    words: list[Token] = []
    offset_ms = 0
    for piece, result in heard:
        words += (
            replace(word, start_ms=word.start_ms + offset_ms, end_ms=word.end_ms + offset_ms)
            for word in result["words"]
        )
        offset_ms += len(piece) * 1000 // SAMPLE_RATE_HZ
    language = results[0]["language"]
    return {
        "text": ("" if language in _UNSPACED else " ").join(r["text"] for r in results),
        "words": words,
        "language": language,
        "confidence": min(result["confidence"] for result in results),
    }


def _in_script(text: str, tokens: Iterable[Token], language: str) -> tuple[str, tuple[Token, ...]]:
    """Convert Chinese to the script of the requested language. The model writes either."""
    convert = _converter(_SCRIPTS.get(language.lower().replace("_", "-"), "t2s")).convert
    return convert(text), tuple(replace(token, text=convert(token.text)) for token in tokens)


@cache
def _converter(name: str) -> Any:
    return OpenCC(name)
