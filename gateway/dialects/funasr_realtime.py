"""Core: FunASR's newer protocol (``funasr/bin/realtime_ws.py`` from 1.3.16 on): commands as plain
text, and results with all sentences so far (docs/dialects.md)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.dialects.dialect import (
    BEHIND_THE_END,
    TOO_MANY,
    WAITING_MAX,
    Dialect,
    MessageError,
    Parsed,
    Reply,
)
from gateway.dialects.fields import (
    HOTWORDS_TEXT_CHARS_MAX,
    LANGUAGE_CHARS_MAX,
    as_text,
    storable,
    storable_hotwords,
)
from gateway.dialects.funasr import Funasr
from gateway.dialects.strict_json import to_json
from gateway.session import events as e
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

_COMMANDS: Final = ("START", "STOP", "COMMIT")
_SETTINGS: Final = ("HOTWORDS:", "POSTPROCESS_HOTWORDS:", "LANGUAGE:")
_COMMAND_BYTES: Final = 64
"""Longest command with spaces around it, or name of a setting, that is looked for in a binary
message."""
_LANGUAGES: Final = {
    **dict.fromkeys(("中文", "普通话", "汉语", "chinese", "mandarin"), "zh"),
    **dict.fromkeys(("英文", "英语", "english"), "en"),
    **dict.fromkeys(("日文", "日语", "日本語", "japanese"), "ja"),
    **dict.fromkeys(("韩文", "韩语", "한국어", "korean"), "ko"),
    **dict.fromkeys(("粤语", "广东话", "cantonese"), "yue"),
    **{"deutsch": "de", "français": "fr", "español": "es", "русский": "ru", "العربية": "ar"},
    **{"português": "pt", "italiano": "it", "auto": ""},
}
"""Fun-ASR-Nano's names of languages. Others are passed on."""
_MS_BYTES: Final = SAMPLE_RATE_HZ * BYTES_PER_SAMPLE // 1000

Message = dict[str, Any]


def is_command(message: str | bytes) -> bool:
    """Whether ``message`` is one of this protocol, and not of FunASR's older one."""
    if isinstance(message, bytes):  # Some clients send all of their messages as binary ones.
        message = message[:_COMMAND_BYTES].decode("latin-1")
    command = message.strip().upper()
    return command in _COMMANDS or command.startswith(_SETTINGS)


@dataclass(slots=True)
class _Recording:
    """From ``START`` to ``STOP``: a session."""

    session_id: str
    byte_count: int = 0
    begun: bool = False
    """Its first audio has been received."""
    stops: int = 0
    """``STOP`` commands to be answered."""
    dropped: bool = False
    """Another ``START`` has replaced it: no more answers are sent."""
    sentences: list[Message] = field(default_factory=list)
    """Sentences since the last ``COMMIT``."""
    partial: e.PartialText | None = None
    segments: int = 0
    """Number of delivered segments, failed ones included."""
    commits: deque[int] = field(default_factory=deque)
    """For each unanswered ``COMMIT``, the segment count after which it is answered."""
    warnings: tuple[e.SessionWarning, ...] = ()
    failed: bool = False

    def result(self, *, is_final: bool) -> Message:
        duration_ms = self.byte_count // _MS_BYTES
        partial = None if is_final else self.partial
        start_ms = 0 if is_final else duration_ms
        return {
            "sentences": list(self.sentences),
            "partial": "" if partial is None else partial.text,
            "partial_start_ms": start_ms if partial is None else partial.start_ms,
            "duration_ms": duration_ms,
            "is_final": is_final,
        }


class FunasrRealtime(Dialect):
    """``new_session_id`` makes the session ids, which the protocol does not have. A session begins
    with its first audio, since ``HOTWORDS:`` and ``LANGUAGE:`` follow ``START``."""

    name = "funasr"

    def __init__(self, new_session_id: Callable[[], str]) -> None:
        self._new_session_id = new_session_id
        self._hotwords: tuple[str, ...] = ()
        self._language = ""
        self._active: _Recording | None = None
        """The recording between ``START`` and ``STOP``."""
        self._begun: deque[_Recording] = deque()
        """Recordings whose sessions have begun and not ended. Answers concern the first."""

    # -------------------------------------------------------------------------------------- parsing

    def parse(self, message: str | bytes) -> Sequence[Parsed]:
        if isinstance(message, bytes) and is_command(message):
            message = message.decode(errors="replace")
        message = as_text(message)
        if isinstance(message, bytes):
            return self._audio(message)
        command = message.strip()
        kind, colon, value = command.partition(":")
        match kind.upper() + colon:
            case "START":
                return self._start()
            case "STOP":
                return self._stop()
            case "COMMIT":
                return self._commit()
            case "HOTWORDS:":
                return self._set_hotwords(value)
            case "LANGUAGE:":
                return self._set_language(value.strip())
            case "POSTPROCESS_HOTWORDS:":
                answer = {"event": "postprocess_hotwords_set", "postprocess_hotwords": {}}
                warned = _warned("hotwords_ignored", "postprocess_hotwords have no effect")
                return (_reply(answer | warned),)
        raise MessageError(f"a message must be audio or one of {', '.join(_COMMANDS + _SETTINGS)}")

    def _start(self) -> Sequence[Parsed]:
        ended: Sequence[Parsed] = ()
        if (before := self._active) is not None and before.begun:
            before.dropped = True
            ended = (e.Finish(session_id=before.session_id),)
        self._active = _Recording(self._new_session_id())
        return (*ended, _reply({"event": "started"}))

    def _audio(self, data: bytes) -> Sequence[Parsed]:
        recording = self._active
        if recording is None:
            return (BEHIND_THE_END,)
        recording.byte_count += len(data)
        chunk = e.Chunk(data=data)
        return (chunk,) if recording.begun else (self._begin(recording), chunk)

    def _begin(self, recording: _Recording) -> e.Start:
        recording.begun = True
        self._begun.append(recording)
        return e.Start(
            session_id=recording.session_id,
            mode="stream",
            sample_rate_hz=SAMPLE_RATE_HZ,
            language=self._language,
            hotwords=self._hotwords,
            partials=True,
        )

    def _stop(self) -> Sequence[Parsed]:
        recording, self._active = self._active, None
        if recording is not None and recording.begun:
            recording.stops += 1
            return (e.Finish(session_id=recording.session_id),)
        if recording is None and self._begun:
            if self._begun[-1].stops >= WAITING_MAX:
                return (TOO_MANY,)
            self._begun[-1].stops += 1
            return ()
        return (_reply({"event": "stopped"}),)

    def _commit(self) -> Sequence[Parsed]:
        if (recording := self._active) is None:
            return (_reply(_error("Session is not active; send START first")),)
        if not recording.begun:
            return (_reply(recording.result(is_final=True)),)
        if len(recording.commits) >= WAITING_MAX:
            return (TOO_MANY,)
        return (e.EndUtterance(),)

    def _set_hotwords(self, value: str) -> Sequence[Parsed]:
        if len(value) > HOTWORDS_TEXT_CHARS_MAX:
            raise MessageError(f"HOTWORDS: at most {HOTWORDS_TEXT_CHARS_MAX} characters")
        self._hotwords = storable_hotwords(value.replace("，", ",").split(","), "HOTWORDS:")
        answer: Message = {"event": "hotwords_set", "hotwords": list(self._hotwords)}
        return (_reply(answer | self._late()),)

    def _set_language(self, language: str) -> Sequence[Parsed]:
        if len(language) > LANGUAGE_CHARS_MAX:
            raise MessageError(f"LANGUAGE: at most {LANGUAGE_CHARS_MAX} characters")
        known = _LANGUAGES.get(language.lower(), language)
        self._language = storable(known, "LANGUAGE:")
        answer: Message = {"event": "language_set", "language": language}
        return (_reply(answer | self._late()),)

    def _late(self) -> Message:
        """Return a warning if a session has begun: it keeps the values of its start."""
        if self._active is None or not self._active.begun:
            return {}
        return _warned("setting_late", "this has an effect from the next START on")

    # ------------------------------------------------------------------------------------- encoding

    def encode(self, answer: e.Answer) -> Sequence[str]:
        recording = self._begun[0] if self._begun else None
        if recording is None:
            return [to_json(_problem(answer))] if isinstance(answer, e.Problem) else []
        messages = self._messages(recording, answer)
        if recording.dropped:
            return []
        if messages and recording.warnings:
            messages[0]["warnings"] = recording.warnings
            recording.warnings = ()
        return [to_json(message) for message in messages]

    def _messages(self, recording: _Recording, answer: e.Answer) -> list[Message]:
        if isinstance(answer, e.Started):
            recording.warnings = answer.warnings
        elif isinstance(answer, e.PartialText) and answer.segment_index == recording.segments:
            recording.partial = answer
            return [recording.result(is_final=False)]
        elif isinstance(answer, e.SegmentText):
            return _segment(recording, answer)
        elif isinstance(answer, e.SpeechEnded):
            recording.commits.append(answer.next_segment_index)
            return _committed(recording)
        elif isinstance(answer, e.Problem):
            return _failed(recording, answer)
        elif isinstance(answer, e.Finished):
            self._begun.popleft()
            recording.warnings += answer.warnings
            stopped: list[Message] = [{"event": "stopped"}] * recording.stops
            return [recording.result(is_final=True), *stopped]
        return []


class FunasrEither(Dialect):
    """The two protocols share a path: a command as plain text begins this one, anything else the
    older one."""

    name = "funasr"

    def __init__(self, new_session_id: Callable[[], str]) -> None:
        self._new_session_id = new_session_id
        self._spoken: Dialect | None = None

    def parse(self, message: str | bytes) -> Sequence[Parsed]:
        if self._spoken is None:
            spoken = FunasrRealtime if is_command(message) else Funasr
            self._spoken = spoken(self._new_session_id)
        return self._spoken.parse(message)

    def encode(self, answer: e.Answer) -> Sequence[str]:
        return () if self._spoken is None else self._spoken.encode(answer)


def _segment(recording: _Recording, answer: e.SegmentText) -> list[Message]:
    recording.segments = answer.segment_index + 1
    recording.partial = None
    if answer.text:
        tokens = answer.tokens
        recording.sentences.append(
            {
                "text": answer.text,
                "start": tokens[0].start_ms if tokens else answer.start_ms,
                "end": tokens[-1].end_ms if tokens else answer.end_ms,
            }
        )
    # The result of a commit has this sentence.
    return _committed(recording) or [recording.result(is_final=False)]


def _committed(recording: _Recording) -> list[Message]:
    """The answers to the commits whose segments are all delivered."""
    messages = []
    while recording.commits and recording.commits[0] <= recording.segments:
        recording.commits.popleft()
        messages.append(recording.result(is_final=True))
        recording.sentences.clear()
    return messages


def _failed(recording: _Recording, problem: e.Problem) -> list[Message]:
    if problem.segment_index is not None:
        recording.segments = problem.segment_index + 1
    elif recording.failed:
        return []  # A damaged file is one error, not one for each of its slices.
    else:
        recording.failed = problem.code != "bad_message"
    return [_problem(problem), *_committed(recording)]


def _problem(problem: e.Problem) -> Message:
    return _error(f"{problem.code}: {problem.message}")


def _error(text: str) -> Message:
    return {"event": "error", "error": text}


def _warned(code: str, message: str) -> Message:
    return {"warnings": [{"code": code, "message": message}]}


def _reply(message: Message) -> Reply:
    return Reply(to_json(message), "bad_state" if message.get("event") == "error" else None)
