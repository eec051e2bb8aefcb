"""Fields of REST answers under the names of the system that this one replaces, besides our own.

Its clients work with only the address changed. No audio is stored, so ``audio_path`` is always
null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from gateway.session.transcript import join_texts
from wire.messages import Result


def session_fields(session_id: str, text: str, segments: Iterable[Result]) -> dict[str, Any]:
    """Return the fields of that system's ``GET /api/v1/session/{id}``. ``results`` and
    ``completed`` are keyed by the index of the chunk in which a segment ends."""
    texts: defaultdict[int, list[str]] = defaultdict(list)
    for segment in segments:
        texts[segment.last_chunk_index].append(segment.text or "")
    return {
        "id": session_id,
        "final_text": text,
        "results": {index: join_texts(parts) for index, parts in texts.items()},
        "completed": dict.fromkeys(texts, True),
        "audio_path": None,
    }
