"""Core: Deepgram's streaming protocol (docs/dialects.md), as its SDKs, LiveKit and pipecat use it,
and its API for files. A connection is one session."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from msgspec import structs, to_builtins

from gateway.dialects.deepgram_query import Warned, parse_query
from gateway.dialects.dialect import (
    BEHIND_THE_END,
    TOO_MANY,
    WAITING_MAX,
    Dialect,
    MessageError,
    Parsed,
    Query,
    Reply,
)
from gateway.dialects.fields import as_text, confidence_or_default
from gateway.dialects.strict_json import parse_object, to_json
from gateway.dialects.subtitles import timed_words
from gateway.session import events as e
from gateway.session.recognised import confidence, main_language
from wire.messages import Lane

CHANNEL_INDEX = [0, 1]
"""The first of one channel."""
_BARE = re.compile(r"[^\W_](?:.*[^\W_])?", re.DOTALL)

Message = dict[str, Any]


class Deepgram(Dialect):
    """``session_id`` becomes the request id. ``created`` is the time of the connection."""

    name = "deepgram"
    stays_open = False
    parameters = None

    def __init__(self, query: Query, session_id: str, created: datetime) -> None:
        """Raises ``MessageError`` if the query is invalid."""
        self._options = parse_query(query, session_id)
        self._session_id = session_id
        self._created = created
        self._hash = hashlib.sha256()
        self._started = self._ended = False
        self._finalizing: deque[int] = deque()
        """For each unanswered ``Finalize``, the segment count after which it is answered."""
        self._segments = 0
        """Number of delivered segments, failed ones included."""
        self._speech_ended = 0
        """Index of the first segment after the last end of speech."""
        self._speech_ends: set[int] = set()
        """The same for each end of speech whose last segment has no text yet."""
        self._utterance_end: int | None = None
        """The segment whose text must precede ``UtteranceEnd``."""
        self._last_word_end_ms = 0
        self._model = ""
        self._warnings = [*self._options.warned]
        self._warnings_sent = False
        self._failed = False

    # -------------------------------------------------------------------------------------- parsing

    def parse(self, message: str | bytes) -> Sequence[Parsed]:
        if self._ended:
            return (BEHIND_THE_END,)
        message = as_text(message)
        if isinstance(message, bytes):
            return self.take_audio(message)
        kind = parse_object(message).get("type")
        if kind == "KeepAlive":
            return ()
        if kind == "Finalize":
            if len(self._finalizing) >= WAITING_MAX:
                return (TOO_MANY,)
            return (*self._begin(), e.EndUtterance())
        if kind == "CloseStream":
            return self._finish()
        if kind == "Configure":
            refusal = {
                "type": "ConfigureFailure",
                "request_id": self._session_id,
                "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
                "description": "options are part of the address; a session keeps them",
            }
            return (Reply(to_json(refusal)),)
        raise MessageError("type must be KeepAlive, Finalize or CloseStream")

    def take_audio(self, data: bytes) -> Sequence[e.ClientEvent]:
        """Take a piece of the audio, or, if it is empty, its end."""
        self._hash.update(data)
        chunk = e.Chunk(data=data)
        return (*self._begin(), chunk) if data else self._finish()

    def _begin(self) -> Sequence[e.ClientEvent]:
        if self._started:
            return ()
        self._started = True
        return (self._options.start,)

    def _finish(self) -> Sequence[e.ClientEvent]:
        self._ended = True
        return (*self._begin(), e.Finish(session_id=self._session_id))

    # ------------------------------------------------------------------------------------- encoding

    def encode(self, answer: e.Answer) -> Sequence[str]:
        return [to_json(message) for message in self._messages(answer)]

    def _messages(self, answer: e.Answer) -> Sequence[Message]:
        if isinstance(answer, e.Started):
            self._note_start(answer)
        elif isinstance(answer, e.SpeechStarted) and self._options.vad_events:
            timestamp = answer.start_ms / 1000
            return [{"type": "SpeechStarted", "channel": CHANNEL_INDEX, "timestamp": timestamp}]
        elif isinstance(answer, e.SpeechEnded):
            return self._speech_end(answer)
        elif isinstance(answer, e.LongSilence):
            self._utterance_end = answer.next_segment_index
            return self._due()
        elif isinstance(answer, e.PartialText):
            # The words of a later segment must not precede those of this one.
            is_next = answer.segment_index == self._segments
            return [self._results(answer, is_final=False)] if is_next else []
        elif isinstance(answer, e.SegmentText):
            return self._segment(answer)
        elif isinstance(answer, e.Problem):
            return self._problem(answer)
        elif isinstance(answer, e.Finished):
            return [self._metadata(answer)]
        return []

    def _note_start(self, answer: e.Started) -> None:
        self._model = answer.model
        asked = self._options.start.model
        if asked and asked != answer.model:
            message = f"no model is called {asked!r}; {answer.model!r} is used"
            self._warnings.append(Warned(parameter="model", type="unknown", message=message))
        self._warn(answer.warnings)

    def _warn(self, warnings: Sequence[e.SessionWarning]) -> None:
        for each in warnings:
            self._warnings.append(Warned(parameter="", type=each.code, message=each.message))

    def _speech_end(self, answer: e.SpeechEnded) -> Sequence[Message]:
        if answer.requested:
            self._finalizing.append(answer.next_segment_index)
            return self._due()
        before, self._speech_ended = self._speech_ended, answer.next_segment_index
        if before < answer.next_segment_index <= self._segments and self._options.speech_final:
            # No words have followed a cut at the length limit.
            return [self._silence(from_finalize=False)]
        if before < answer.next_segment_index:
            self._speech_ends.add(answer.next_segment_index)
        return []

    def _segment(self, answer: e.SegmentText) -> Sequence[Message]:
        self._segments = answer.segment_index + 1
        if answer.text:
            tokens = answer.tokens
            self._last_word_end_ms = tokens[-1].end_ms if tokens else answer.end_ms
        finalized = self._segments in self._finalizing
        if finalized:
            self._finalizing.remove(self._segments)
        ended = self._segments in self._speech_ends
        self._speech_ends.discard(self._segments)
        speech_final = (ended or finalized) and self._options.speech_final
        results = self._results(answer, speech_final=speech_final, from_finalize=finalized)
        return [results, *self._due()]

    def _due(self) -> list[Message]:
        """Messages that waited for the text of a segment."""
        messages = []
        while self._finalizing and self._finalizing[0] <= self._segments:
            self._finalizing.popleft()
            messages.append(self._silence(from_finalize=True))
        if self._utterance_end is not None and self._utterance_end <= self._segments:
            self._utterance_end = None
            messages.append(
                {
                    "type": "UtteranceEnd",
                    "channel": CHANNEL_INDEX,
                    "last_word_end": self._last_word_end_ms / 1000,
                }
            )
        return messages

    def _problem(self, problem: e.Problem) -> Sequence[Message]:
        if problem.segment_index is not None:
            self._segments = problem.segment_index + 1
        elif self._failed:
            return []  # A damaged file is one error, not one for each of its slices.
        else:
            self._failed = problem.code != "bad_message"
        error = {
            "type": "Error",
            "variant": problem.code,
            "description": problem.message,
            "message": problem.message,
        }
        return [error, *self._due()]

    def _results(
        self,
        answer: e.SegmentText | e.PartialText,
        *,
        is_final: bool = True,
        speech_final: bool = False,
        from_finalize: bool = False,
    ) -> Message:
        only = _alternative(answer.text, [answer])
        if isinstance(answer, e.SegmentText) and answer.language:
            only["languages"] = [answer.language]
        return {
            "type": "Results",
            "channel_index": CHANNEL_INDEX,
            "duration": (answer.end_ms - answer.start_ms) / 1000,
            "start": answer.start_ms / 1000,
            "is_final": is_final,
            "speech_final": speech_final,
            "channel": {"alternatives": [only]},
            "metadata": self._result_metadata(),
            "from_finalize": from_finalize,
        }

    def _silence(self, *, from_finalize: bool) -> Message:
        """``Results`` without words."""
        at_ms, speech_final = self._last_word_end_ms, self._options.speech_final
        nothing = e.PartialText(segment_index=0, text="", start_ms=at_ms, end_ms=at_ms)
        return self._results(nothing, speech_final=speech_final, from_finalize=from_finalize)

    def _result_metadata(self) -> Message:
        metadata: Message = {
            "request_id": self._session_id,
            "model_info": _model_info(self._model),
            "model_uuid": _model_uuid(self._model),
        }
        if self._warnings and not self._warnings_sent:
            metadata["warnings"] = self._warnings
        self._warnings_sent = True
        return metadata

    def _metadata(self, answer: e.Finished) -> Message:
        self._warn(answer.warnings)
        uuid = _model_uuid(self._model)
        metadata: Message = {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._session_id,
            "sha256": self._hash.hexdigest(),
            "created": self._created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": answer.duration_ms / 1000,
            "channels": 1,
            "models": [uuid],
            "model_info": {uuid: _model_info(self._model)},
        }
        return {**metadata, "warnings": self._warnings} if self._warnings else metadata


class DeepgramFile(Deepgram):
    """A file (``POST /v1/listen``). Its pieces are for ``take_audio``: none is a message."""

    lane: Lane = "bulk"

    def __init__(self, query: Query, session_id: str, created: datetime) -> None:
        super().__init__(query, session_id, created)
        start = structs.replace(self._options.start, partials=False)
        self._options = replace(self._options, start=start)

    def body(self, segments: Sequence[e.SegmentText], finished: e.Finished) -> Message:
        """Return the body of the answer. All other answers of the session were encoded before."""
        channel: Message = {"alternatives": [_alternative(finished.text, segments)]}
        if language := main_language(segments):
            channel["detected_language"] = language
        metadata = self._metadata(finished)
        del metadata["type"]
        body: Message = to_builtins({"metadata": metadata, "results": {"channels": [channel]}})
        return body


def _alternative(text: str, parts: Sequence[e.SegmentText | e.PartialText]) -> Message:
    """The only alternative of a text."""
    segments = [part for part in parts if isinstance(part, e.SegmentText)]
    return {
        "transcript": text,
        "confidence": confidence_or_default(confidence(segments)),
        "words": [word for part in parts for word in _words(part)],
    }


def _words(answer: e.SegmentText | e.PartialText) -> list[Message]:
    common = {"confidence": confidence_or_default(None)}
    if isinstance(answer, e.SegmentText):
        common["confidence"] = confidence_or_default(answer.confidence)
        if answer.speaker is not None:
            common["speaker"] = answer.speaker - 1  # Deepgram counts from 0.
    return [
        {
            "word": bare(word.text),
            "start": word.start_ms / 1000,
            "end": word.end_ms / 1000,
            **common,
            "punctuated_word": word.text,
        }
        for word in timed_words(answer)
    ]


def bare(word: str) -> str:
    """The word in lower case, without the punctuation around it."""
    found = _BARE.search(word)
    return (found[0] if found is not None else word).lower()


def _model_info(name: str) -> Message:
    return {"name": name, "version": "", "arch": name}


def _model_uuid(name: str) -> str:
    """Deepgram's models have one; this one (of version 8, RFC 9562) follows from the name."""
    digits = hashlib.sha256(name.encode()).hexdigest()
    return "-".join(
        (digits[:8], digits[8:12], f"8{digits[13:16]}", f"8{digits[17:20]}", digits[20:32])
    )
