"""SenseVoice: CTC, several languages, texts with tags (github.com/FunAudioLLM/SenseVoice)."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer
from wire.messages import Abilities

_LANGUAGE = re.compile(r"<\|(zh|en|yue|ja|ko)\|>")
"""The tag for the language; without speech the model writes ``nospeech`` in its place."""


class SenseVoice(FunasrRecognizer):
    modules: ClassVar = (
        "funasr.models.sense_voice.model",
        "funasr.models.specaug.specaug",
        "funasr.frontends.wav_frontend",
        "funasr.tokenizer.sentencepiece_tokenizer",
    )
    can: ClassVar = Abilities(
        languages=("zh", "en", "yue", "ja", "ko"),
        takes_language=True,
        detects_language=True,
        punctuation=True,
        itn=True,
    )
    fixed_options: ClassVar = (("use_itn", True),)
    """Inverse text normalisation, as FunASR's documentation recommends."""

    def detected_language(self, result: dict[str, Any]) -> str:
        found = _LANGUAGE.match(str(result.get("text", "")))
        return found[1] if found else ""

    def text_and_words(self, result: dict[str, Any]) -> tuple[str, list[str]]:
        """See ``FunasrRecognizer``. The tags for language, emotion and events are removed."""
        from funasr.utils.postprocess_utils import rich_transcription_postprocess

        text: str = rich_transcription_postprocess(str(result.get("text", "")))
        return text, list(result.get("words") or ())
