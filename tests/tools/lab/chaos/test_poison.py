"""Speech with a poisoned utterance in the middle."""

from __future__ import annotations

import random

from tools.lab.chaos.poison import poisoned_speech
from tools.lab.chaos.sabotage import POISON


def test_only_the_second_of_three_utterances_is_poisoned() -> None:
    texts, pcm = poisoned_speech(random.Random(1))
    assert len(texts) == 2 and all(texts) and len(pcm) % 2 == 0
    assert pcm.count(POISON) == 1
    assert len(pcm) / 4 < pcm.index(POISON) < len(pcm) * 3 / 4
    assert pcm.index(POISON) % 2 == 0, "the samples stay aligned"
