"""Core: the protocol of FunASR's runtime server (docs/dialects.md), as its Python, html5 and C++
clients use it. A connection has one recording after another; each is a session."""

from __future__ import annotations

import contextlib
import json
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from gateway.audio.wav import DeclaredAudio
from gateway.dialects.dialect import BEHIND_THE_END, Dialect, Ignored, MessageError, Parsed, Reply
from gateway.dialects.fields import (
    HOTWORDS_TEXT_CHARS_MAX,
    LANGUAGE_CHARS_MAX,
    as_text,
    in_range,
    shown_names,
    storable,
    storable_hotwords,
    truth,
)
from gateway.dialects.increments import Increments
from gateway.dialects.speakers import speaker_name, with_speakers
from gateway.dialects.strict_json import parse_object, to_json
from gateway.session import events as e
from gateway.session.recognised import recognised
from wire.messages import SAMPLE_RATE_HZ, Token

WAV_NAME_CHARS_MAX = 256
RATE_CHARS_MAX = 16
LATE = e.SessionWarning(code="setting_late", message="options inside of a recording have no effect")
WEIGHTS = e.SessionWarning(code="weights_ignored", message="weights of hotwords are ignored")

Message = dict[str, Any]
RecordingMode = Literal["offline", "online", "2pass"]
_MODES: dict[str, RecordingMode] = {
    "offline": "offline",
    "online": "online",
    "2pass": "2pass",
    "office": "offline",  # Sent by a C# client.
}
_FIELDS = frozenset(
    {
        *("mode", "wav_name", "wav_format", "audio_fs", "hotwords", "svs_lang", "svs_itn", "itn"),
        *("speakers", "is_speaking", "is_end", "chunk_size", "chunk_interval"),
        *("encoder_chunk_look_back", "decoder_chunk_look_back"),
    }
)
"""Fields that have an effect, or that all clients send."""
_SENTENCE_MARKS = re.compile("[。？，、?. ,]")
_ENGLISH = re.compile("[a-zA-Z]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """The fields of a start message. A later start keeps the values that it omits: the C++ client
    sends its hotwords with the first file only."""

    mode: RecordingMode = "offline"
    wav_name: str = "demo"
    encoded: bool = False
    sample_rate_hz: int | None = None
    hotwords: tuple[str, ...] = ()
    language: str = ""
    """Empty: the model detects it."""
    speakers: bool = False
    itn: bool | None = None
    utterance_ends: bool = True
    """In mode online each utterance ends with ``is_final``. FunASR's C++ clients, which alone send
    ``svs_itn``, close the connection on the first one."""
    weighted: bool = False
    """Hotwords have weights."""
    ignored: tuple[str, ...] = ()
    """Names of fields that have no effect."""


@dataclass(slots=True)
class _Recording:
    """A recording, and its replies so far."""

    session_id: str
    settings: _Settings
    increments: Increments
    finished: bool = False
    """Its end has been received."""
    wants_end: bool = False
    """The client expects a reply with ``is_end``."""
    next_segment_index: int = 0
    error: str | None = None
    segments: list[e.SegmentText] = field(default_factory=list)
    """In mode offline only: its single reply contains all segments."""
    warnings: tuple[e.SessionWarning, ...] = ()
    """Sent with the next reply."""
    held: Message | None = None
    """A reply after the end of the recording, held back because it may be the last."""


class Funasr(Dialect):
    """``new_session_id`` makes the session ids, which the protocol does not have."""

    name = "funasr"

    def __init__(self, new_session_id: Callable[[], str]) -> None:
        self._new_session_id = new_session_id
        self._settings = _Settings()
        self._recordings: deque[_Recording] = deque()
        """Recordings without a final reply. Answers concern the first, messages the last: the C++
        client sends its next file without waiting for the result of the one before."""
        self._announced = False
        """A start was received. Its recording begins with the first audio or the end: until then
        further messages change its settings, as in FunASR's server."""
        self._refusal = ""
        """The reason why the last start was refused. Its audio is ignored, and its end is
        answered."""

    # -------------------------------------------------------------------------------------- parsing

    def parse(self, message: str | bytes) -> Sequence[Parsed]:
        recording = self._recordings[-1] if self._recordings else None
        message = as_text(message)
        if isinstance(message, bytes):
            ended = recording is not None and recording.finished
            if self._refusal or (ended and not self._announced):
                return (BEHIND_THE_END,)  # The last frame of a microphone.
            chunk = e.Chunk(data=message)
            return (self._begin(), chunk) if recording is None or ended else (chunk,)
        fields = parse_object(message)
        wants_end = truth(fields.get("is_end")) is True
        speaking = fields.get("is_speaking", True)
        if recording is not None and not recording.finished:
            speaking = speaking or False  # FunASR's server takes null, "" and [] for an end, too.
        ends = wants_end or truth(speaking) is False
        if recording is not None and not recording.finished:
            # Settings belong to the start.
            if LATE not in recording.warnings and _changes(recording.settings, fields):
                recording.warnings += (LATE,)
            return self._end(wants_end=wants_end) if ends else (Ignored("inside_a_recording"),)
        if ends and self._refusal:
            return self._end_refused(wants_end=wants_end)
        if ends:
            return self._end(wants_end=wants_end)
        # A start without a format has PCM.
        before = self._settings if self._announced else replace(self._settings, encoded=False)
        try:
            self._settings = _settings(fields, before)
        except MessageError as error:
            self._refusal = f"{error.code}: {error}"
            raise
        self._refusal = ""
        self._announced = True
        return ()

    def _end_refused(self, *, wants_end: bool) -> Sequence[Parsed]:
        """Return the last reply to a refused recording: its client waits for one."""
        refusal, self._refusal = self._refusal, ""
        self._announced = False
        settings = self._settings
        more: Message = {"is_end": True} if wants_end else {"is_final": True}
        last = _reply(settings, settings.mode, "", error=refusal, **more)
        return (Reply(to_json(last)),)

    def _begin(self) -> e.Start:
        settings, session_id = self._settings, self._new_session_id()
        self._announced = False
        increments = Increments(
            revisable=settings.mode == "2pass",
            keeps_last=settings.mode == "online" and settings.utterance_ends,
        )
        self._recordings.append(_Recording(session_id, settings, increments))
        return e.Start(
            session_id=session_id,
            mode="stream",
            sample_rate_hz=settings.sample_rate_hz or SAMPLE_RATE_HZ,
            language=settings.language,
            hotwords=settings.hotwords,
            partials=settings.mode != "offline",
            speakers=settings.speakers,
            # As in FunASR's server, increments that cannot be corrected stay as they are spoken.
            itn=settings.itn if settings.mode != "online" else None,
            encoded=settings.encoded,
            # Its clients send the rate also with files that have another one.
            declared=None
            if settings.encoded
            else DeclaredAudio(sample_rate_hz=settings.sample_rate_hz),
            ignored_fields=settings.ignored,
        )

    def _end(self, *, wants_end: bool) -> Sequence[e.ClientEvent | Ignored]:
        started = (self._begin(),) if self._announced or not self._recordings else ()
        recording = self._recordings[-1]
        recording.wants_end |= wants_end
        if recording.finished:
            return (BEHIND_THE_END,)
        recording.finished = True
        return (*started, e.Finish(session_id=recording.session_id))

    # ------------------------------------------------------------------------------------- encoding

    def encode(self, answer: e.Answer) -> Sequence[str]:
        if not self._recordings:
            if isinstance(answer, e.Problem):
                return [to_json(_error(self._settings, answer))]
            return []
        recording = self._recordings[0]
        if isinstance(answer, e.Started):
            weights = (WEIGHTS,) if recording.settings.weighted else ()
            recording.warnings += (*answer.warnings, *weights)
        elif isinstance(answer, e.Finished):
            self._recordings.popleft()
            recording.warnings += answer.warnings
        encode = _ENCODERS.get(type(answer))
        replies = [*encode(recording, answer)] if encode is not None else []
        if replies and recording.warnings:
            replies[0] = {**replies[0], "warnings": recording.warnings}
            recording.warnings = ()
        return [to_json(reply) for reply in replies]


# --------------------------------------------------------------------------------- a start's fields


def _settings(fields: dict[str, Any], before: _Settings) -> _Settings:
    changed: dict[str, Any] = {}
    # Clients send "" for an option that their user has left empty.
    if (mode := fields.get("mode")) not in (None, ""):
        if not isinstance(mode, str) or mode not in _MODES:
            raise MessageError("mode must be offline, online or 2pass")
        changed["mode"] = _MODES[mode]
    if (name := fields.get("wav_name")) is not None:
        changed["wav_name"] = storable(str(name)[:WAV_NAME_CHARS_MAX], "wav_name")
    # "others" is any container. html5 sends WAV files as "pcm"; their header is detected.
    if (container := fields.get("wav_format")) is not None:
        changed["encoded"] = str(container or "pcm").lower() not in ("pcm", "wav")
    if (rate := fields.get("audio_fs")) not in (None, ""):
        changed["sample_rate_hz"] = _sample_rate_hz(rate)
    if (hotwords := fields.get("hotwords")) is not None:
        changed["hotwords"], changed["weighted"] = _hotwords(hotwords)
    if (language := fields.get("svs_lang")) is not None:
        changed["language"] = _language(language)
    if (speakers := fields.get("speakers")) not in (None, ""):
        changed["speakers"] = _flag(speakers, "speakers")
    # ``svs_itn`` is the same option for SenseVoice.
    for name in ("svs_itn", "itn"):
        if (itn := fields.get(name)) not in (None, ""):
            changed["itn"] = _flag(itn, name)
    if "mode" in fields:
        changed["utterance_ends"] = "svs_itn" not in fields
    unknown = [name for name in fields if name not in _FIELDS and fields[name] is not None]
    if unknown:
        changed["ignored"] = shown_names(storable(name, "a name") for name in unknown)
    return replace(before, **changed)


def _changes(settings: _Settings, fields: dict[str, Any]) -> bool:
    """Whether a start with ``fields`` would change ``settings``."""
    try:
        return _settings(fields, settings) != settings
    except MessageError:
        return True


def _sample_rate_hz(value: Any) -> int:
    """Any number, also as a text."""
    if isinstance(value, str) and len(value) <= RATE_CHARS_MAX:
        with contextlib.suppress(ValueError):
            value = float(value)
    if type(value) not in (int, float):
        raise MessageError("audio_fs must be a number")
    return in_range(value, "audio_fs")


def _flag(value: Any, name: str) -> bool:
    if (meaning := truth(value)) is None:
        raise MessageError(f"{name} must be true or false")
    return meaning


def _language(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LANGUAGE_CHARS_MAX:
        raise MessageError(f"svs_lang must be a string of at most {LANGUAGE_CHARS_MAX} characters")
    return "" if value == "auto" else storable(value, "svs_lang")


def _hotwords(value: Any) -> tuple[tuple[str, ...], bool]:
    """Hotwords from a JSON object (word to weight), a list, the text of either, or words separated
    by commas or spaces; and whether they differ in weight, which the models do not take."""
    if isinstance(value, str):
        if len(value) > HOTWORDS_TEXT_CHARS_MAX:
            raise MessageError(f"hotwords must be at most {HOTWORDS_TEXT_CHARS_MAX} characters")
        text = value.strip()
        if text.startswith("{") or (text.startswith("[") and text.endswith("]")):
            try:
                fields = parse_object(f'{{"hotwords": {text}}}')
            except MessageError as error:
                raise MessageError(f"hotwords: {error}") from error
            if len(fields) > 1:
                raise MessageError("hotwords: not valid JSON")
            value = fields["hotwords"]
        else:
            value = re.split(r"[,，\n]" if re.search(r"[,，\n]", value) else r"\s", value)
    if not isinstance(value, dict | list) or not all(
        isinstance(word, str | int | float) for word in value
    ):
        raise MessageError("hotwords must be a string, an object, or a list of strings")
    weighted = isinstance(value, dict) and len({str(weight) for weight in value.values()}) > 1
    return storable_hotwords(map(str, value), "hotwords"), weighted


# ------------------------------------------------------------------------------------------ replies


def _reply(settings: _Settings, mode: str, text: str, **more: Any) -> Message:
    # Older clients fail without ``text``, and ignore a message without ``mode``.
    fields = {"mode": mode, "text": text, "wav_name": settings.wav_name, "is_final": False}
    return {**fields, **more}


def _released(recording: _Recording) -> list[Message]:
    """Return the reply that was held back."""
    held, recording.held = recording.held, None
    return [held] if held is not None else []


def _partial(recording: _Recording, answer: e.PartialText) -> Sequence[Message]:
    settings = recording.settings
    if settings.mode == "offline" or answer.segment_index != recording.next_segment_index:
        return ()
    text = recording.increments.partial(answer.text)
    mode = "online" if settings.mode == "online" else "2pass-online"
    return (*_released(recording), _reply(settings, mode, text)) if text else ()


def _segment(recording: _Recording, answer: e.SegmentText) -> Sequence[Message]:
    recording.next_segment_index = answer.segment_index + 1
    settings = recording.settings
    if settings.mode == "offline":
        recording.segments.append(answer)
        return ()
    if settings.mode == "online":
        text = recording.increments.final(answer.text)
        if not answer.text or not (text or settings.utterance_ends):
            return ()
        more = recognised([answer]) | _speaker(answer)
        reply = _reply(settings, "online", text, **more)
        reply["is_final"] = settings.utterance_ends
    else:
        text = recording.increments.sentence(answer.text)
        more = _times(text, [answer]) | recognised([answer]) | _speaker(answer)
        reply = _reply(settings, "2pass-offline", text, **more)
    replies = [*_released(recording), reply]
    if recording.finished and not recording.wants_end:
        # As with FunASR's server, the last reply has the last text: after its end a client may read
        # only one.
        recording.held = replies.pop()
    return replies


def _error(settings: _Settings, problem: e.Problem) -> Message:
    return _reply(settings, settings.mode, "", error=f"{problem.code}: {problem.message}")


def _problem(recording: _Recording, problem: e.Problem) -> Sequence[Message]:
    if problem.segment_index is not None:
        recording.next_segment_index = problem.segment_index + 1
        recording.increments.final("")
    if recording.error is not None:
        return ()  # A damaged file is one error, not one for each of its slices.
    reply = _error(recording.settings, problem)
    recording.error = reply["error"]
    if recording.settings.mode == "offline":
        return ()  # Its clients count replies; the last one has the error.
    return (*_released(recording), reply)


def _finished(recording: _Recording, answer: e.Finished) -> Sequence[Message]:
    """The last messages. ``is_end`` follows all texts, if the client expects it."""
    settings, error = recording.settings, recording.error
    replies = _released(recording)
    failure = {"error": error} if error is not None else {}
    if settings.mode == "offline":
        segments = with_speakers(recording.segments, answer)
        more = _times(answer.text, segments) | _sentences(segments) | recognised(segments)
        last = {} if recording.wants_end else {"is_final": True, **failure}
        replies.append(_reply(settings, "offline", answer.text, **more, **last))
    mode = "2pass-offline" if settings.mode == "2pass" else settings.mode
    if recording.wants_end:
        # The client raises an error for an ``is_end`` that is not final.
        is_final = error is None
        replies.append(_reply(settings, mode, "", is_end=True, is_final=is_final, **failure))
    elif settings.mode != "offline":
        last = replies.pop() if replies else _reply(settings, mode, "")
        replies.append({**last, "is_final": True, **failure})
    return replies


_ENCODERS: dict[type, Callable[[_Recording, Any], Sequence[Message]]] = {
    e.PartialText: _partial,
    e.SegmentText: _segment,
    e.Problem: _problem,
    e.Finished: _finished,
}

# -------------------------------------------------------------------------------------------- times


def _times(text: str, segments: Sequence[e.SegmentText]) -> dict[str, Any]:
    """``timestamp`` and ``stamp_sents``, if the model returned times."""
    spoken = [segment for segment in segments if segment.text]
    tokens = [token for segment in spoken for token in segment.tokens]
    if not tokens or not all(segment.tokens for segment in spoken):
        return {}
    if not _html5_can_place(text, len(tokens)):
        return {}
    return {
        "timestamp": json.dumps(_pairs(tokens), separators=(",", ":")),
        "stamp_sents": [
            {
                "text_seg": " ".join(token.text for token in segment.tokens),
                "punc": _punctuation(segment.text),
                "start": segment.tokens[0].start_ms,
                "end": segment.tokens[-1].end_ms,
                "ts_list": _pairs(segment.tokens),
                **_spk(segment),
            }
            for segment in spoken
        ],
    }


def _punctuation(text: str) -> str:
    """The mark at the end of a sentence."""
    last = text.strip()[-1:]
    return last if unicodedata.category(last or " ")[0] == "P" else ""


def _spk(segment: e.SegmentText) -> dict[str, int]:
    """FunASR counts speakers from 0."""
    return {} if segment.speaker is None else {"spk": segment.speaker - 1}


def _speaker(segment: e.SegmentText) -> dict[str, Any]:
    if segment.speaker is None:
        return {}
    return {"spk_name": speaker_name(segment.speaker), **_spk(segment)}


def _sentences(segments: Sequence[e.SegmentText]) -> dict[str, Any]:
    """``sentence_info`` as ``funasr.AutoModel`` returns it with a speaker model."""
    if all(segment.speaker is None for segment in segments):
        return {}
    return {
        "sentence_info": [
            {"text": each.text, "start": each.start_ms, "end": each.end_ms, **_spk(each)}
            for each in segments
            if each.text
        ]
    }


def _pairs(tokens: Sequence[Token]) -> list[list[int]]:
    return [[token.start_ms, token.end_ms] for token in tokens]


def _html5_can_place(text: str, count: int) -> bool:
    """Whether the html5 client finds a time for each word. It expects one for each character of
    a run without spaces, unless it is English. If there are fewer it fails and shows nothing, so
    mixed text is sent without times."""
    index = 0
    for word in filter(None, _SENTENCE_MARKS.split(text)):
        if index >= count:
            return False
        index += 1 if _ENGLISH.fullmatch(word) else len(word)
    return True
