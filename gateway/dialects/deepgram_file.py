"""Core: the answer of Deepgram's API for files (``POST /v1/listen``). Its options and the forms of
its parts are those of the streaming protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from msgspec import structs

from gateway.dialects.deepgram import CONFIDENCE, Deepgram, Message, words
from gateway.dialects.dialect import Query
from gateway.session import events as e
from gateway.session.recognised import confidence, main_language
from wire.messages import Lane


class DeepgramFile(Deepgram):
    """A file, whose pieces are parsed like binary messages. An empty message ends it."""

    lane: Lane = "bulk"

    def __init__(self, query: Query, session_id: str, created: datetime) -> None:
        super().__init__(query, session_id, created)
        start = structs.replace(self._options.start, partials=False)
        self._options = replace(self._options, start=start)

    def body(self, segments: Sequence[e.SegmentText], finished: e.Finished) -> Message:
        """Return the body of the answer. All other answers of the session were encoded before."""
        sure = confidence(segments)
        alternative: Message = {
            "transcript": finished.text,
            "confidence": CONFIDENCE if sure is None else sure,
            "words": [word for segment in segments if segment.text for word in words(segment)],
        }
        channel: Message = {"alternatives": [alternative]}
        if language := main_language(segments):
            channel["detected_language"] = language
        metadata = self._metadata(finished)
        del metadata["type"]
        return {"metadata": metadata, "results": {"channels": [channel]}}
