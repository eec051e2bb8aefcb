"""Two models in one worker: a streaming one for partial results, another for final ones (FunASR
calls it 2pass)."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from asr_worker.recognizer.protocol import Recognition, Recognizer, Utterance
from wire.messages import Abilities


class TwoPass:
    """The model is ``final``, whose partial results are those of ``online``."""

    def __init__(self, final: Recognizer, online: Recognizer) -> None:
        self.model = final.model
        self.device = final.device
        self._final = final
        self._online = online

    @property
    def abilities(self) -> Abilities:
        return replace(self._final.abilities, streaming=True)

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        partials = [utterance for utterance in utterances if utterance.partial]
        finals = [utterance for utterance in utterances if not utterance.partial]
        of_partials = iter(self._online.recognize(partials) if partials else ())
        of_finals = iter(self._final.recognize(finals) if finals else ())
        return [next(of_partials if utterance.partial else of_finals) for utterance in utterances]
