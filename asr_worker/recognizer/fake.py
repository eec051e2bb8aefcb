"""A recogniser without a model, for load tests of everything around the model.

``fake:BATCHms+SECONDms/s*JOBS`` takes BATCH milliseconds for each batch and SECOND for each second
of its audio, in batches of at most JOBS. On one core, Whisper base is like ``fake:1500ms*1``,
Paraformer with 220 M parameters like ``fake:150ms+64ms/s*8``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import structlog

from asr_worker.recognizer.protocol import BATCH_JOBS_MAX, Recognition, Utterance
from asr_worker.settings import FAKE
from wire.messages import Abilities, pcm_duration_ms


class FakeRecognizer:
    """Each text is a hash of its audio, so that a lost or misrouted result is detected."""

    device = "none"

    def __init__(self, model: str) -> None:
        """``model`` is a name that ``FAKE`` matches."""
        match = FAKE.fullmatch(model)
        assert match is not None, model
        self.model = model
        self.abilities = Abilities(batch_jobs=int(match["jobs"] or BATCH_JOBS_MAX))
        self._batch_s = int(match["batch_ms"]) / 1000
        self._second_s = int(match["second_ms"] or 0) / 1000
        structlog.get_logger().warning(
            "fake_recognizer", note="texts are hashes of the audio, nothing is recognised"
        )

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        audio_s = sum(pcm_duration_ms(utterance.pcm) for utterance in utterances) / 1000
        time.sleep(self._batch_s + self._second_s * audio_s)
        return [Recognition(text=fake_text(utterance.pcm)) for utterance in utterances]


def fake_text(pcm: bytes) -> str:
    return hashlib.blake2b(pcm, digest_size=8).hexdigest()
