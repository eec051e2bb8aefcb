"""A worker whose model takes as long as a large one and finds the words of the demo model.

``python -m tests.integration.slow_demo``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec.structs import replace

from asr_worker import service
from asr_worker.recognizer.loading import build
from asr_worker.recognizer.protocol import Recognition, Recognizer, Utterance
from asr_worker.settings import WorkerSettings

MODULE = "tests.integration.slow_demo"
UTTERANCE_S = 0.5
"""Whisper base on one core takes as long, and one utterance at a time."""


class SlowRecognizer:
    def __init__(self, inner: Recognizer) -> None:
        self.model, self.device = inner.model, inner.device
        self.abilities = replace(inner.abilities, batch_jobs=1)
        self._inner = inner

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        time.sleep(UTTERANCE_S * len(utterances))
        return self._inner.recognize(utterances)


def build_slow(values: WorkerSettings) -> SlowRecognizer:
    return SlowRecognizer(build(values))


if __name__ == "__main__":
    service.main(build_slow)
