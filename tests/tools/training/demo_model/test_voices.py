"""Which voices train, and which test."""

from __future__ import annotations

import random

from tools.training.demo_model import voices


def test_no_held_out_voice_is_used_in_training() -> None:
    requests = voices.kokoro_requests(random.Random(1), 50)
    assert not any(voices.KOKORO_STYLE_TEST in request.voice.name for request in requests)
    assert not voices.ESPEAK_VARIANTS_LEFT_OUT.intersection(voices.ESPEAK_VARIANTS_TEST)
