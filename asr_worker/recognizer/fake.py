"""A recogniser without a model, for load tests of everything around the model."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import structlog

from asr_worker.recognizer.protocol import BATCH_JOBS_MAX, Recognition, Utterance
from wire.messages import Abilities


class FakeRecognizer:
    """Each batch takes ``batch_s`` seconds, and each text is a hash of its audio.

    The hash reveals a lost, duplicated or misrouted result as reliably as a transcript.
    """

    abilities = Abilities(batch_jobs=BATCH_JOBS_MAX)
    device = "none"

    def __init__(self, model: str, batch_s: float) -> None:
        self.model = model
        self._batch_s = batch_s
        structlog.get_logger().warning(
            "fake_recognizer", note="texts are hashes of the audio, nothing is recognised"
        )

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        time.sleep(self._batch_s)
        return [Recognition(text=fake_text(utterance.pcm)) for utterance in utterances]


def fake_text(pcm: bytes) -> str:
    """Return the fake recogniser's text of ``pcm``."""
    return hashlib.blake2b(pcm, digest_size=8).hexdigest()
