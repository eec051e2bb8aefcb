"""A FunASR punctuation model (CT-Transformer)."""

from __future__ import annotations

from typing import Any, ClassVar


class Punctuator:
    """Adds punctuation by a ``funasr.AutoModel``."""

    model_class: ClassVar = "CTTransformer"
    modules: ClassVar = (
        "funasr.models.ct_transformer.model",
        "funasr.models.sanm.encoder",
        "funasr.tokenizer.char_tokenizer",
    )
    """The FunASR modules that register the model's classes."""

    def __init__(self, auto: Any) -> None:
        self._auto = auto

    def punctuate(self, text: str) -> str:
        """Return ``text`` with punctuation.

        Raises:
            Exception: any that FunASR raises; it has no exception type of its own.
        """
        punctuated: str = self._auto.generate(input=[text])[0]["text"]
        return punctuated
