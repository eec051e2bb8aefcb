"""Core: transcription sessions of OpenAI's Realtime API, at ``/v1/realtime`` (docs/dialects.md).

A connection has one of our sessions after another: a change of the configuration ends the session,
and the next audio begins another. An *item* is a turn: the segments from one commit to the next, by
the client or at the end of speech.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.dialects import base64_audio
from gateway.dialects.dialect import (
    TOO_MANY,
    WAITING_MAX,
    Dialect,
    Handshake,
    Ignored,
    MessageError,
    Parsed,
    Reply,
)
from gateway.dialects.fields import shown_names
from gateway.dialects.increments import Increments
from gateway.dialects.openai import invalid, is_openais
from gateway.dialects.realtime_session import FORMAT, RealtimeSession, updated
from gateway.dialects.strict_json import parse_object, to_json
from gateway.session import events as e
from gateway.session.recognised import main_language
from gateway.session.transcript import join_texts

COMMIT_MS_MIN = 100
"""Audio since the last commit; with less a commit is OpenAI's ``input_audio_buffer_commit_empty``.
"""
EVENT_ID_CHARS_MAX = 512
BETA_HEADER = ("openai-beta", "realtime=v1")
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"

SERVER_CODES = frozenset(
    {
        *("overloaded", "deadline", "chunk_failed", "recognition_failed", "no_broker", "no_worker"),
        *("max_connections", "storage_backlog", "draining"),
    }
)
"""Problems that the client did not cause."""

Fields = dict[str, Any]
Request = Literal["commit", "clear"]


@dataclass(slots=True)
class _Item:
    """A turn, from its first audio until its transcript is complete."""

    id: str
    start_ms: int
    increments: Increments = field(default_factory=lambda: Increments(revisable=False))
    segments: list[e.SegmentText] = field(default_factory=list)
    failure: e.Problem | None = None
    end_ms: int = 0
    next_segment_index: int | None = None
    """Its segments are those up to this one; None: it has not ended."""
    cleared: bool = False
    """The client has discarded it."""


class Realtime(Dialect):
    """``new_id`` makes the ids of sessions and items."""

    name = "openai-realtime"
    may_start_again = True
    parameters = frozenset({"model", "resume", "intent"})

    def __init__(self, handshake: Handshake, new_id: Callable[[], str]) -> None:
        query = {name: values[-1] for name, values in handshake.query.items()}
        header, value = BETA_HEADER
        offered = handshake.subprotocols
        self._beta = handshake.headers.get(header) == value or BETA_SUBPROTOCOL in offered
        self._prefix = "session"
        if self._beta and query.get("intent") == "transcription":
            self._prefix = "transcription_session"
        if query.get("intent", "transcription") != "transcription":
            self.parameters -= {"intent"}
        self._new_id = new_id
        self._id = f"sess_{new_id()}"
        self._events = 0
        self._config = RealtimeSession(model=query.get("model", ""))
        self._client_event_id: str | None = None
        self._sessions = 0
        self._running: e.Start | None = None
        """The start of the session that takes audio; None: the next audio begins one."""
        self._started = False
        """A session has started and not finished, so a problem does not refuse a start. The next
        session may already be requested: it starts after this one."""
        self._refused = False
        """A start was refused: audio is ignored until the configuration is updated."""
        self._offset_ms = 0
        """Duration of the audio of earlier sessions."""
        self._warned_of_fields = False
        self._buffered_ms = 0.0
        """Audio since the last commit."""
        self._items: deque[_Item] = deque()
        """Items without a transcript. Only the last has not ended."""
        self._last_item_id: str | None = None
        self._delivered = 0
        """Segments of the session with a text or an error."""
        self._asked: deque[Request] = deque()
        """The client's requests that ``SpeechEnded`` answers."""
        self._changed = False
        """The session ends with the next commit, because the configuration has changed."""
        self._turn_start_ms = 0
        """Start of the next item's audio, unless speech detection reports another one."""

    def served_name(self, asked: str) -> str:
        return "" if is_openais(asked) else asked

    def greeting(self) -> Sequence[str]:
        return (self._session_event("created"),)

    # -------------------------------------------------------------------------------------- parsing

    def parse(self, message: str | bytes) -> Sequence[Parsed]:
        self._client_event_id = None
        try:
            # Some clients send all of their messages as binary ones.
            text = message if isinstance(message, str) else message.decode(errors="replace")
            if text is not message and not text.lstrip("\ufeff \t\r\n").startswith("{"):
                raise invalid(None, "events are JSON, with audio as base64", "invalid_type")
            fields = parse_object(text)
            event_id = fields.get("event_id")
            if isinstance(event_id, str):
                self._client_event_id = event_id[:EVENT_ID_CHARS_MAX]
            kind = fields.get("type")
            if not isinstance(kind, str) or kind not in _HANDLERS:
                known = ", ".join(_HANDLERS)
                raise invalid("type", f"must be one of {known}")
            return (*_HANDLERS[kind](self, fields), *self._unknown_fields(kind, fields))
        except MessageError as error:
            # OpenAI leaves the connection open, whatever the client sends.
            refusal = self._error_event(_error(error.code, str(error), error.param))
            return (Reply(refusal, problem="bad_message"),)

    def _unknown_fields(self, kind: str, fields: Fields) -> Sequence[Parsed]:
        """Warn of fields that events of the buffer do not have, for the first event with any."""
        if self._warned_of_fields or kind not in _OF_BUFFER:
            return ()
        names = shown_names(name for name in fields if name not in _OF_BUFFER[kind])
        if not names:
            return ()
        self._warned_of_fields = True
        message = f"fields of {kind} without effect: {', '.join(names)}"
        warning = e.SessionWarning(code="field_ignored", message=message)
        return (Reply(self._session_event("updated", (warning,))),)

    def _append(self, fields: Fields) -> Sequence[Parsed]:
        audio = fields.get("audio")
        if not isinstance(audio, str):
            raise invalid("audio", "must be base64 in a string", "invalid_type")
        data = base64_audio.decode(audio, "audio")
        if not data:
            return ()
        if self._refused:
            return (Ignored("refused_start"),)
        self._buffered_ms += len(data) * 1000 / self._config.bytes_per_s
        chunk = e.Chunk(data=data)
        if self._running is not None:
            return (chunk,)
        self._sessions += 1
        number = f".{self._sessions}" if self._sessions > 1 else ""
        self._running = self._config.start(self._id + number)
        return (self._running, chunk)

    def _commit(self, _fields: Fields) -> Sequence[Parsed]:
        if self._buffered_ms < COMMIT_MS_MIN:
            raise invalid(
                None,
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{COMMIT_MS_MIN}ms of audio, but buffer only has {self._buffered_ms:.2f}ms of "
                "audio.",
                "input_audio_buffer_commit_empty",
            )
        self._buffered_ms = 0.0
        return self._end_utterance("commit")

    def _clear(self, _fields: Fields) -> Sequence[Parsed]:
        self._buffered_ms = 0.0
        return self._end_utterance("clear")

    def _update(self, fields: Fields) -> Sequence[Parsed]:
        if fields["type"].startswith("transcription"):
            self._beta, self._prefix = True, "transcription_session"
        # In the beta's documentation the fields are beside the type.
        given = fields.get("session")
        if given is None and self._beta:
            given = {name: value for name, value in fields.items() if name not in _ENVELOPE}
        before = self._config
        self._config, warnings = updated(before, given)
        self._refused = False
        ended = self._end_session_if_changed(before)
        return (*ended, Reply(self._session_event("updated", warnings)))

    def _end_session_if_changed(self, before: RealtimeSession) -> Sequence[Parsed]:
        running = self._running
        if running is None or self._config.start(running.session_id) == running:
            return ()
        if not before.client_commits or not self._buffered_ms:
            self._buffered_ms = 0.0
            return (self._finish(running),)
        if (self._config.format, self._config.rate_hz) != (before.format, before.rate_hz):
            self._config = before
            message = "cannot change while the buffer has audio; commit or clear it first"
            raise invalid(FORMAT, message)
        self._changed = True
        return ()

    def _end_utterance(self, request: Request) -> Sequence[Parsed]:
        running = self._running
        if running is None:
            return (Reply(self._event("input_audio_buffer.cleared")),)
        if len(self._items) >= WAITING_MAX:
            return (TOO_MANY,)
        self._asked.append(request)
        end = e.EndUtterance(discard=request == "clear")
        return (end, self._finish(running)) if self._changed else (end,)

    def _finish(self, running: e.Start) -> e.Finish:
        self._running, self._changed = None, False
        return e.Finish(session_id=running.session_id)

    def hung_up(self) -> Sequence[e.ClientEvent]:
        return (self._finish(self._running),) if self._running is not None else ()

    # ------------------------------------------------------------------------------------- encoding

    def encode(self, answer: e.Answer) -> Sequence[str]:
        encode = _ENCODERS.get(type(answer))
        return () if encode is None else encode(self, answer)

    def _note_started(self, answer: e.Started) -> Sequence[str]:
        self._started = True
        return self._warned(answer) if answer.warnings else ()

    def _warned(self, answer: e.Started | e.AudioWarned) -> Sequence[str]:
        return (self._session_event("updated", answer.warnings),)

    def _speech_started(self, answer: e.SpeechStarted) -> Sequence[str]:
        item = self._open_item()
        item.start_ms = self._offset_ms + answer.start_ms
        kind = "input_audio_buffer.speech_started"
        return (self._event(kind, audio_start_ms=item.start_ms, item_id=item.id),)

    def _speech_ended(self, answer: e.SpeechEnded) -> Sequence[str]:
        item = self._open_item()
        item.end_ms = self._turn_start_ms = self._offset_ms + answer.end_ms
        item.next_segment_index = answer.next_segment_index
        events: list[str] = []
        if not answer.requested:
            self._buffered_ms = 0.0
            kind = "input_audio_buffer.speech_stopped"
            events.append(self._event(kind, audio_end_ms=item.end_ms, item_id=item.id))
        elif self._asked.popleft() == "clear":
            item.cleared = True
            events.append(self._event("input_audio_buffer.cleared"))
        if not item.cleared:
            events += self._committed(item)
        return (*events, *self._complete_items())

    def _committed(self, item: _Item) -> Sequence[str]:
        before, self._last_item_id = self._last_item_id, item.id
        message = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        kinds = ("created",) if self._beta else ("added", "done")
        return (
            self._event("input_audio_buffer.committed", previous_item_id=before, item_id=item.id),
            *(
                self._event(f"conversation.item.{kind}", previous_item_id=before, item=message)
                for kind in kinds
            ),
        )

    def _partial(self, answer: e.PartialText) -> Sequence[str]:
        item = self._item_of(answer.segment_index)
        return self._delta(item, item.increments.partial(answer.text))

    def _segment(self, answer: e.SegmentText) -> Sequence[str]:
        item = self._item_of(answer.segment_index)
        item.segments.append(answer)
        self._delivered = answer.segment_index + 1
        delta = self._delta(item, item.increments.final(answer.text))
        return (*delta, *self._complete_items())

    def _delta(self, item: _Item, text: str) -> Sequence[str]:
        if not text or item.cleared:
            return ()
        return (self._transcription(item, "delta", delta=text, logprobs=None),)

    def _problem(self, problem: e.Problem) -> Sequence[str]:
        if problem.segment_index is not None:
            self._item_of(problem.segment_index).failure = problem
            self._delivered = problem.segment_index + 1
            return self._complete_items()
        if not self._started:
            self._running = None  # Its start was refused.
            self._refused = True
            self._buffered_ms = 0.0
            self._asked.clear()
        return (self._error_event(_error(problem.code, problem.message)),)

    def _finished(self, answer: e.Finished) -> Sequence[str]:
        self._offset_ms += answer.duration_ms
        self._turn_start_ms = self._offset_ms
        self._delivered = 0
        self._started = False
        return ()

    # ---------------------------------------------------------------------------------------- items

    def _open_item(self) -> _Item:
        """The item of the audio that is received now."""
        if not self._items or self._items[-1].next_segment_index is not None:
            self._items.append(_Item(f"item_{self._new_id()}", self._turn_start_ms))
        return self._items[-1]

    def _item_of(self, segment_index: int) -> _Item:
        for item in self._items:
            if item.next_segment_index is None or segment_index < item.next_segment_index:
                return item
        return self._open_item()

    def _complete_items(self) -> Sequence[str]:
        """Remove the items whose segments are all delivered. Returns their transcripts."""
        events: list[str] = []
        while self._items and (end := self._items[0].next_segment_index) is not None:
            if end > self._delivered:
                break
            item = self._items.popleft()
            if not item.cleared:
                events.append(self._transcript(item))
        return events

    def _transcript(self, item: _Item) -> str:
        if item.failure is not None:
            return self._transcription(
                item, "failed", error=_error(item.failure.code, item.failure.message)
            )
        language = main_language(item.segments)
        return self._transcription(
            item,
            "completed",
            transcript=join_texts(segment.text for segment in item.segments),
            logprobs=None,
            usage={"type": "duration", "seconds": (item.end_ms - item.start_ms) / 1000},
            **({"languages": [{"code": language}]} if language else {}),
        )

    # --------------------------------------------------------------------------------------- events

    def _transcription(self, item: _Item, kind: str, **fields: Any) -> str:
        name = f"conversation.item.input_audio_transcription.{kind}"
        return self._event(name, item_id=item.id, content_index=0, **fields)

    def _session_event(self, kind: str, warnings: Sequence[e.SessionWarning] = ()) -> str:
        session = {
            "id": self._id,
            "object": "realtime.transcription_session",
            "expires_at": None,
            **(self._config.flat() if self._beta else self._config.nested()),
        }
        also = {"warnings": warnings} if warnings else {}
        return self._event(f"{self._prefix}.{kind}", session=session, **also)

    def _error_event(self, fields: Fields) -> str:
        return self._event("error", error={**fields, "event_id": self._client_event_id})

    def _event(self, kind: str, **fields: Any) -> str:
        self._events += 1
        return to_json({"type": kind, "event_id": f"event_{self._events:06}", **fields})


def _error(code: str, message: str, param: str | None = None) -> Fields:
    kind = "server_error" if code in SERVER_CODES else "invalid_request_error"
    return {"type": kind, "code": code, "message": message, "param": param}


Handler = Callable[[Realtime, Fields], Sequence[Parsed]]
_HANDLERS: dict[str, Handler] = {
    "session.update": Realtime._update,
    "transcription_session.update": Realtime._update,
    "input_audio_buffer.append": Realtime._append,
    "input_audio_buffer.commit": Realtime._commit,
    "input_audio_buffer.clear": Realtime._clear,
}
_ENVELOPE = frozenset({"type", "event_id"})
_OF_BUFFER = {
    "input_audio_buffer.append": _ENVELOPE | {"audio"},
    "input_audio_buffer.commit": _ENVELOPE,
    "input_audio_buffer.clear": _ENVELOPE,
}
"""Fields of the events of the buffer."""
_ENCODERS: dict[type, Callable[[Realtime, Any], Sequence[str]]] = {
    e.Started: Realtime._note_started,
    e.SpeechStarted: Realtime._speech_started,
    e.SpeechEnded: Realtime._speech_ended,
    e.PartialText: Realtime._partial,
    e.SegmentText: Realtime._segment,
    e.AudioWarned: Realtime._warned,
    e.Problem: Realtime._problem,
    e.Finished: Realtime._finished,
}
