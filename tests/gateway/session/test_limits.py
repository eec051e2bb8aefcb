from __future__ import annotations

from gateway.dialects.dialect import Handshake
from gateway.dialects.native import Native
from gateway.dialects.registry import DIALECTS
from gateway.session.limits import FileTraits
from tests.gateway.session_driver import LIMITS
from wire.messages import JOB_DEADLINE_MS_MAX


def test_sessions_that_cannot_be_resumed_do_not_wait_for_their_client_or_commit() -> None:
    limits = LIMITS.for_protocol(DIALECTS["/vosk"](Handshake()))
    assert (limits.resume_wait_s, limits.stored_wait_s) == (0, 0)
    assert limits.segment_deadline_ms == LIMITS.segment_deadline_ms
    assert LIMITS.for_protocol(Native()) == LIMITS


def test_bulk_audio_has_the_longest_deadline() -> None:
    assert LIMITS.for_protocol(FileTraits("openai")).segment_deadline_ms == JOB_DEADLINE_MS_MAX
