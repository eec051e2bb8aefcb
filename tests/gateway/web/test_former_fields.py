"""Fields by the names of the system that this one replaces."""

from __future__ import annotations

from gateway.web.former_fields import session_fields
from tests.gateway.telemetry.test_activity import FAILED, result


def test_texts_are_keyed_by_the_chunk_in_which_they_end() -> None:
    segments = [
        result(seq=0, last_chunk_index=0, text="one"),
        result(seq=1, last_chunk_index=2, text="two"),
        result(seq=2, last_chunk_index=2, text="three"),
        result(seq=3, last_chunk_index=3, **FAILED),
    ]
    assert session_fields("s", "one two three", segments) == {
        "id": "s",
        "final_text": "one two three",
        "results": {0: "one", 2: "two three", 3: ""},
        "completed": {0: True, 2: True, 3: True},
        "audio_path": None,
    }
