"""SenseVoice: CTC, several languages, texts with tags (github.com/FunAudioLLM/SenseVoice)."""

from __future__ import annotations

from typing import Any, ClassVar

from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer


class SenseVoice(FunasrRecognizer):
    modules: ClassVar = (
        "funasr.models.sense_voice.model",
        "funasr.models.specaug.specaug",
        "funasr.frontends.wav_frontend",
        "funasr.tokenizer.sentencepiece_tokenizer",
    )
    takes_hotwords = False
    fixed_options: ClassVar = (("use_itn", True),)
    """Inverse text normalisation, as FunASR's documentation recommends."""

    def text_and_words(self, result: dict[str, Any]) -> tuple[str, list[str]]:
        """See ``FunasrRecognizer``. The tags for language, emotion and events are removed."""
        from funasr.utils.postprocess_utils import rich_transcription_postprocess

        text: str = rich_transcription_postprocess(str(result.get("text", "")))
        return text, list(result.get("words") or ())
