"""From spoken words to written text, after the model: punctuation, and numbers in digits.

A model with punctuation or inverse text normalisation (ITN) of its own keeps it; this module adds
what is missing, and removes punctuation that a session does not want.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace as replace_field

import structlog
from msgspec.structs import replace

from asr_worker.recognizer import inverse_normalization
from asr_worker.recognizer.protocol import (
    RECOGNITION_FAILED,
    Recognition,
    Recognizer,
    Utterance,
)
from asr_worker.recognizer.punctuation import Punctuator, has_marks, without_marks
from wire.messages import Abilities, Failure


class WrittenForm:
    """A ``Recognizer`` around another one. Token times and words stay those of the model."""

    def __init__(self, recognizer: Recognizer, punctuator: Punctuator | None) -> None:
        self.model = recognizer.model
        self.device = recognizer.device
        self._recognizer = recognizer
        self._punctuator = punctuator

    @property
    def abilities(self) -> Abilities:
        found = self._recognizer.abilities
        punctuation = found.punctuation or self._punctuator is not None
        return replace(found, punctuation=punctuation, itn=True)

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        """See ``Recognizer``."""
        recognitions = self._recognizer.recognize(utterances)
        self._punctuate(utterances, recognitions)
        for index, (utterance, recognition) in enumerate(
            zip(utterances, recognitions, strict=True)
        ):
            if recognition.text:
                recognitions[index] = self._written(utterance, recognition, recognition.text)
        return recognitions

    def _punctuate(self, utterances: Sequence[Utterance], recognitions: list[Recognition]) -> None:
        """Add punctuation to all texts without any, in one batch."""
        if self._punctuator is None:
            return
        chosen, texts, contexts = [], [], []
        for index, utterance in enumerate(utterances):
            text = recognitions[index].text
            if text and utterance.punctuation is not False and not has_marks(text):
                chosen.append(index)
                texts.append(text)
                contexts.append(utterance.context)
        if not chosen:
            return
        try:
            written = self._punctuator.punctuate(texts, contexts)
        except Exception as error:
            structlog.get_logger().exception("punctuation_failed")
            message = f"the punctuation model failed ({type(error).__name__})"
            failure = Failure(code=RECOGNITION_FAILED, message=message)
            for index in chosen:
                recognitions[index] = Recognition(text=None, failure=failure)
            return
        for index, text in zip(chosen, written, strict=True):
            recognitions[index] = replace_field(recognitions[index], text=text)

    def _written(self, utterance: Utterance, recognition: Recognition, text: str) -> Recognition:
        # Partial results keep their words: "twenty" is not 20 if "five" follows.
        if utterance.itn and not utterance.partial and not self._recognizer.abilities.itn:
            text = inverse_normalization.written(text)
        if utterance.punctuation is False:
            text = without_marks(text)
        return recognition if text == recognition.text else replace_field(recognition, text=text)
