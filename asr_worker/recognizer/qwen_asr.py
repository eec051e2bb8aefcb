"""Qwen3-ASR: a language model with an audio encoder (github.com/QwenLM/Qwen3-ASR), which needs the
package ``qwen-asr``."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from msgspec.structs import replace

from asr_worker.recognizer.funasr_recognizer import FunasrRecognizer, Options, in_a_prompt
from wire.messages import Abilities


class QwenAsr(FunasrRecognizer):
    modules: ClassVar = ("funasr.models.qwen3_asr.model",)
    can: ClassVar = Abilities(
        takes_language=True, detects_language=True, hotwords="words", punctuation=True, itn=True
    )
    batches: ClassVar = True

    def __init__(self, auto: Any, *, model: str, device: str) -> None:
        names: dict[str, str] = sys.modules["funasr.models.qwen3_asr.model"]._ISO_LANG_ALIASES
        self._codes = {name: code for code, name in reversed(names.items()) if "-" not in code}
        super().__init__(auto, model=model, device=device)

    def found_abilities(self, family: Abilities) -> Abilities:
        """Add the languages, from FunASR's table for the model."""
        return replace(family, languages=tuple(self._codes.values()))

    def hotword_options(self, hotwords: tuple[str, ...]) -> Options:
        """Pass hotwords as the context text, whose words the model prefers."""
        return (("context", " ".join(in_a_prompt(hotwords))),)

    def found_beside_the_text(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the language; the model names several, separated by commas."""
        first = str(result.get("language") or "").partition(",")[0].strip()
        return {"language": self._codes.get(first, "")}
