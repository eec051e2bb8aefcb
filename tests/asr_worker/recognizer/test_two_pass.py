from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from asr_worker.recognizer.protocol import Recognition, Utterance
from asr_worker.recognizer.two_pass import TwoPass
from wire.messages import Abilities


class Named:
    """A recogniser whose texts are its name and the utterance's length."""

    device = "cpu"

    def __init__(self, model: str) -> None:
        self.model = model
        self.abilities = Abilities(hotwords="words", batch_jobs=8)
        self.batches: list[int] = []

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        self.batches.append(len(utterances))
        return [Recognition(text=f"{self.model} {len(each.pcm)}") for each in utterances]


def test_partials_are_of_the_online_model_and_finals_of_the_other() -> None:
    final, online = Named("final"), Named("online")
    both = TwoPass(final, online)
    batch = [
        Utterance(pcm=bytes(2 * size), partial=partial)
        for size, partial in enumerate([True, False, False, True, True])
    ]
    texts = [recognition.text for recognition in both.recognize(batch)]
    assert texts == ["online 0", "final 2", "final 4", "online 6", "online 8"]
    assert (final.batches, online.batches) == ([2], [3])


def test_a_model_without_utterances_is_not_called() -> None:
    final, online = Named("final"), Named("online")
    TwoPass(final, online).recognize([Utterance(pcm=b"", partial=True)])
    TwoPass(final, online).recognize([Utterance(pcm=b"")])
    assert (final.batches, online.batches) == ([1], [1])


def test_it_has_the_abilities_of_the_final_model() -> None:
    final, online = Named("final"), Named("online")
    both = TwoPass(final, online)
    assert (both.model, both.device) == ("final", "cpu")
    assert both.abilities == Abilities(hotwords="words", batch_jobs=8, streaming=True)
    final.abilities = replace(final.abilities, batch_jobs=1)
    assert both.abilities.batch_jobs == 1, "found out later"
