"""From spoken words to written text, after the model: punctuation, and numbers in digits.

A model with punctuation or inverse text normalisation (ITN) of its own keeps it; this module adds
what is missing, and removes punctuation that a session does not want.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from msgspec.structs import replace

from asr_worker.metrics import PUNCTUATION_FAILURES
from asr_worker.recognizer import inverse_normalization
from asr_worker.recognizer.protocol import Recognition, Recognizer, Utterance
from asr_worker.recognizer.punctuation import Punctuator, has_marks, without_marks
from wire.messages import Abilities


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
        recognitions = self._recognizer.recognize(utterances)
        self._punctuate(utterances, recognitions)
        both = zip(utterances, recognitions, strict=True)
        return [self._written(utterance, recognition) for utterance, recognition in both]

    def _punctuate(self, utterances: Sequence[Utterance], recognitions: list[Recognition]) -> None:
        """Add punctuation to all texts without any, in one batch."""
        if self._punctuator is None:
            return
        chosen = {
            index: (text, utterance.context)
            for index, utterance in enumerate(utterances)
            if (text := recognitions[index].text)
            and utterance.punctuation is not False
            and not has_marks(text)
        }
        if chosen:
            texts, contexts = map(list, zip(*chosen.values(), strict=True))
            written = self._marked(self._punctuator, texts, contexts)
            for index, text in zip(chosen, written, strict=True):
                recognitions[index] = replace(recognitions[index], text=text)

    def _marked(
        self, punctuator: Punctuator, texts: list[str], contexts: list[str]
    ) -> Sequence[str]:
        """``texts`` with marks. After a failure each is tried alone; one that fails alone keeps its
        words, which are worth more than its marks."""
        try:
            return punctuator.punctuate(texts, contexts)
        except Exception as error:
            structlog.get_logger().warning(
                "punctuation_failed", texts=len(texts), error=type(error).__name__
            )
            if len(texts) == 1:
                PUNCTUATION_FAILURES.inc()
                return texts
        return [
            self._marked(punctuator, [text], [context])[0]
            for text, context in zip(texts, contexts, strict=True)
        ]

    def _written(self, utterance: Utterance, recognition: Recognition) -> Recognition:
        text = recognition.text
        # Partial results keep their words: "twenty" is not 20 if "five" follows.
        if text and utterance.itn and not utterance.partial and not self._recognizer.abilities.itn:
            text = inverse_normalization.written(text)
        if text and utterance.punctuation is False:
            text = without_marks(text)
        return recognition if text == recognition.text else replace(recognition, text=text)
