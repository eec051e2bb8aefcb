"""SenseVoice: CTC, several languages, texts with tags (github.com/FunAudioLLM/SenseVoice)."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from asr_worker.recognizer import funasr_repairs
from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer, Options
from asr_worker.recognizer.protocol import Utterance
from wire.messages import Abilities

_TAG = re.compile(r"<\|([^|<>]*)\|>")
_LANGUAGES = ("zh", "en", "yue", "ja", "ko")
_EMOTIONS = frozenset(("happy", "sad", "angry", "neutral", "fearful", "disgusted", "surprised"))
_NO_EVENTS = frozenset((*_LANGUAGES, "nospeech", "withitn", "woitn", "speech", "event_unk"))


class SenseVoice(FunasrRecognizer):
    modules: ClassVar = (
        "funasr.models.sense_voice.model",
        "funasr.models.specaug.specaug",
        "funasr.frontends.wav_frontend",
        "funasr.tokenizer.sentencepiece_tokenizer",
    )
    can: ClassVar = Abilities(
        languages=_LANGUAGES,
        takes_language=True,
        detects_language=True,
        word_times=True,
        punctuation=True,
        itn=True,
        tags=True,
    )
    batches: ClassVar = True
    fixed_options: ClassVar = (("output_timestamp", True),)

    def __init__(self, auto: Any, *, model: str, device: str) -> None:
        super().__init__(auto, model=model, device=device)
        if tokenizer := auto.kwargs.get("tokenizer"):
            funasr_repairs.align_decoded_tokens(tokenizer)

    def form_options(self, utterance: Utterance) -> Options:
        """The model has one switch for inverse text normalisation and punctuation."""
        return (("use_itn", utterance.itn is not False),)

    def found_beside_the_text(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return language, emotion and events by the tags. Of several emotions the first counts."""
        tags = [tag.lower() for tag in _TAG.findall(str(result["text"]))]
        emotions = [tag for tag in tags if tag in _EMOTIONS]
        # Sounds may be marked by their start and end: <|Laughter|>…<|/Laughter|>.
        sounds = (tag for tag in tags if not tag.startswith(("/", "emo_")))
        return {
            "language": next((tag for tag in tags if tag in _LANGUAGES), ""),
            "emotion": emotions[0] if emotions else "",
            "events": tuple(dict.fromkeys(s for s in sounds if s not in _NO_EVENTS | _EMOTIONS)),
        }

    def text_and_words(self, result: dict[str, Any]) -> tuple[str, list[str], Any]:
        """See ``FunasrRecognizer``. The tags are removed from the text."""
        timed = _timed_words(result)
        text = _TAG.sub("", str(result["text"]))
        return text, [word for word, _ in timed], [times for _, times in timed]


def _timed_words(result: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the words with their times, without punctuation and SentencePiece's mark of words.
    Empty if some words have no times."""
    timed = zip(result.get("words") or (), result.get("timestamp") or (), strict=True)
    marked = ((str(word).strip("▁"), times) for word, times in timed)
    words = [(word, times) for word, times in marked if any(map(str.isalnum, word))]
    letters = _letters(_TAG.sub("", str(result["text"])))
    return words if _letters("".join(word for word, _ in words)) == letters else []


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))
