"""Core: the configuration of a session of OpenAI's Realtime API, in both of its shapes.

The API of 2025 has nested fields (``audio.input.format``), its beta flat ones
(``input_audio_format``). An update changes the fields that it has; null clears one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from gateway.audio.g711 import SAMPLE_RATE_HZ as G711_SAMPLE_RATE_HZ
from gateway.audio.wav import DeclaredAudio
from gateway.dialects.fields import (
    Language,
    Model,
    SampleRateHz,
    prompt_hotwords,
    shown_names,
    storable,
    storable_hotwords,
)
from gateway.dialects.openai import invalid, is_openais
from gateway.session import events as e
from gateway.session.endpointer import START_THRESHOLD, Endpointing
from wire.messages import BYTES_PER_SAMPLE

PCM_SAMPLE_RATE_HZ: Final = 24_000
PROMPT_CHARS_MAX = 65_536
WITHOUT_TURN_DETECTION: Final = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""Models of OpenAI without turn detection: their clients commit."""
THRESHOLD_DEFAULT = 0.5
"""OpenAI's default. It selects the gateway's own."""

FORMAT: Final = "session.audio.input.format"
TURN_DETECTION_TYPE: Final = "session.audio.input.turn_detection.type"

Format = Literal["pcm", "ulaw", "alaw"]
_NESTED: Final[Mapping[str, Format]] = {
    "audio/pcm": "pcm",
    "audio/pcmu": "ulaw",
    "audio/pcma": "alaw",
}
_FLAT: Final[Mapping[str, Format]] = {"pcm16": "pcm", "g711_ulaw": "ulaw", "g711_alaw": "alaw"}
_FORMATS: Final = {**_NESTED, **_FLAT}
_ENCODING: Final[Mapping[Format, str]] = {"pcm": "linear16", "ulaw": "mulaw", "alaw": "alaw"}
Number = Annotated[float, Meta(ge=0, le=1e9)]


class _Format(Struct, frozen=True):
    type: str | None = None
    rate: SampleRateHz | None = None


class _Transcription(Struct, frozen=True):
    model: Model | UnsetType | None = UNSET
    language: Language | UnsetType | None = UNSET
    languages: tuple[Language, ...] | UnsetType | None = UNSET
    prompt: Annotated[str, Meta(max_length=PROMPT_CHARS_MAX)] | UnsetType | None = UNSET
    keywords: tuple[str, ...] | UnsetType | None = UNSET


class _TurnDetection(Struct, frozen=True):
    type: str = "server_vad"
    threshold: Number | None = None
    prefix_padding_ms: Number | None = None
    silence_duration_ms: Number | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class _Input(Struct, frozen=True):
    format: _Format | UnsetType | None = UNSET
    transcription: _Transcription | UnsetType | None = UNSET
    turn_detection: _TurnDetection | UnsetType | None = UNSET


class _Audio(Struct, frozen=True):
    input: _Input | None = None


class _Session(Struct, frozen=True):
    type: str | None = None
    audio: _Audio | None = None
    include: tuple[str, ...] | None = None
    input_audio_format: str | UnsetType | None = UNSET
    input_audio_transcription: _Transcription | UnsetType | None = UNSET
    turn_detection: _TurnDetection | UnsetType | None = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeSession:
    """The configuration in force."""

    format: Format = "pcm"
    rate_hz: int = PCM_SAMPLE_RATE_HZ
    model: str = ""
    """The client's name of the model."""
    language: str = ""
    prompt: str = ""
    keywords: tuple[str, ...] = ()
    turn_detection: Mapping[str, Any] | Literal["default"] | None = "default"
    """The client's value. None: the client commits."""

    @property
    def bytes_per_s(self) -> int:
        return self.rate_hz * (BYTES_PER_SAMPLE if self.format == "pcm" else 1)

    @property
    def client_commits(self) -> bool:
        if self.turn_detection == "default":
            return self.model in WITHOUT_TURN_DETECTION
        return self.turn_detection is None

    @property
    def endpointing(self) -> Endpointing:
        given = self.turn_detection
        return _endpointing(given if isinstance(given, Mapping) else {})

    def start(self, session_id: str) -> e.Start:
        return e.Start(
            session_id=session_id,
            mode="stream",
            sample_rate_hz=self.rate_hz,
            model="" if is_openais(self.model) else self.model,
            language=self.language,
            hotwords=(*self.keywords, *prompt_hotwords(self.prompt)),
            partials=True,
            declared_raw=True,
            declared=DeclaredAudio(sample_rate_hz=self.rate_hz, encoding=_ENCODING[self.format]),
            endpointing=self.endpointing,
            speech_events=not self.client_commits,
            warnings_at_once=True,
        )

    # -------------------------------------------------------------------------------- as JSON

    def nested(self) -> dict[str, Any]:
        """The fields of a session as the API of 2025 shows them."""
        rate = {"rate": self.rate_hz} if self.format == "pcm" else {}
        shown = {
            "format": {"type": _name_in(_NESTED, self.format), **rate},
            "transcription": self._transcription(),
            "noise_reduction": None,
            "turn_detection": self._turn_detection(),
        }
        return {"type": "transcription", "audio": {"input": shown}, "include": None}

    def flat(self) -> dict[str, Any]:
        """The same as the beta of the API shows them."""
        return {
            "input_audio_format": _name_in(_FLAT, self.format),
            "input_audio_transcription": self._transcription(),
            "input_audio_noise_reduction": None,
            "turn_detection": self._turn_detection(),
            "include": None,
        }

    def _transcription(self) -> dict[str, Any]:
        language, prompt = self.language or None, self.prompt or None
        return {"model": self.model, "language": language, "prompt": prompt}

    def _turn_detection(self) -> dict[str, Any] | None:
        if self.client_commits:
            return None
        given = self.turn_detection
        return {**(given if isinstance(given, Mapping) else {}), "type": "server_vad"}


def _name_in(names: Mapping[str, Format], wanted: Format) -> str:
    return next(name for name, known in names.items() if known == wanted)


def _endpointing(given: Mapping[str, Any]) -> Endpointing:
    threshold = given.get("threshold")
    silence_ms, pre_roll_ms = given.get("silence_duration_ms"), given.get("prefix_padding_ms")
    return Endpointing(
        silence_ms=None if silence_ms is None else int(silence_ms),
        pre_roll_ms=None if pre_roll_ms is None else int(pre_roll_ms),
        start_threshold=None if threshold is None else _start_threshold(threshold),
    )


def _start_threshold(threshold: float) -> float | None:
    """Convert OpenAI's threshold to the scale of the gateway's speech detector: the default becomes
    the gateway's default, and 1 stays 1."""
    above = (threshold - THRESHOLD_DEFAULT) / (1 - THRESHOLD_DEFAULT)
    if above > 0:
        return START_THRESHOLD + above * (1 - START_THRESHOLD)
    return START_THRESHOLD * threshold / THRESHOLD_DEFAULT if above else None


# ------------------------------------------------------------------------------------------ updates


def updated(
    before: RealtimeSession, fields: Any
) -> tuple[RealtimeSession, tuple[e.SessionWarning, ...]]:
    """Return the session after an update with ``fields``, and warnings about fields without effect.
    Raises ``MessageError`` if one is invalid."""
    if not isinstance(fields, dict):
        raise invalid("session", "must be an object", "invalid_type")
    try:
        given = msgspec.convert(fields, _Session)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        problem, _, path = str(error).partition(" - at `$")
        raise invalid(f"session{path.rstrip('`')}", problem) from error
    nested = (given.audio and given.audio.input) or _Input()
    update = _Update(before)
    for code, message in _ignored(fields):
        update.warn(code, message)
    name = given.input_audio_format
    flat_format = _Format(type=name) if isinstance(name, str) else name
    if (format_ := _first(nested.format, flat_format)) is not UNSET:
        update.set_format(format_)
    if (turns := _first(nested.turn_detection, given.turn_detection)) is not UNSET:
        update.set_turns(turns)
    if (wanted := _first(nested.transcription, given.input_audio_transcription)) is not UNSET:
        update.set_transcription(wanted)
    return update.session, tuple(update.warnings)


def _first(nested: Any, flat: Any) -> Any:
    return flat if nested is UNSET else nested


class _Update:
    """The session that results from an update, and warnings."""

    def __init__(self, before: RealtimeSession) -> None:
        self.session = before
        self.warnings: list[e.SessionWarning] = []

    def warn(self, code: str, message: str) -> None:
        self.warnings.append(e.SessionWarning(code=code, message=message))

    def set_format(self, given: _Format | None) -> None:
        given = given or _Format()
        name = given.type or "audio/pcm"
        if name not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise invalid(FORMAT, f"{name!r} is none of {known}")
        found = _FORMATS[name]
        rate_hz = (given.rate or PCM_SAMPLE_RATE_HZ) if found == "pcm" else G711_SAMPLE_RATE_HZ
        if given.rate not in (None, rate_hz):
            message = f"rate: {rate_hz} is used in place of {given.rate}, {name} has no other"
            self.warn("value_limited", message)
        self.session = replace(self.session, format=found, rate_hz=rate_hz)

    def set_turns(self, given: _TurnDetection | None) -> None:
        if given is None or given.type == "none":
            self.session = replace(self.session, turn_detection=None)
            return
        if given.type == "semantic_vad":
            self.warn("semantic_vad_unavailable", "server_vad is used in place of semantic_vad")
        elif given.type != "server_vad":
            raise invalid(TURN_DETECTION_TYPE, f"{given.type!r} is not server_vad")
        names = ("threshold", "prefix_padding_ms", "silence_duration_ms")
        shown = {name: value for name in names if (value := getattr(given, name)) is not None}
        asked = _endpointing(shown)
        used = asked.within_limits()
        for name, wish, value in (
            ("silence_duration_ms", asked.silence_ms, used.silence_ms),
            ("prefix_padding_ms", asked.pre_roll_ms, used.pre_roll_ms),
        ):
            if wish != value:
                self.warn("value_limited", f"{name}: {value} is used in place of {wish}")
                shown[name] = value
        if asked.start_threshold != used.start_threshold:
            nearest = f"the nearest possible value is used in place of {given.threshold:g}"
            self.warn("value_limited", f"threshold: {nearest}")
        if given.create_response or given.interrupt_response:
            self.warn("field_ignored", "turn_detection: this server makes no responses")
        self.session = replace(self.session, turn_detection=shown)

    def set_transcription(self, given: _Transcription | None) -> None:
        if given is None:
            message = "transcription: null has no effect, this server always transcribes"
            self.warn("field_ignored", message)
            given = _Transcription(model=None, language=None, prompt=None, keywords=None)
        changed: dict[str, Any] = {}
        for name in ("model", "language", "prompt"):
            if (text := getattr(given, name)) is not UNSET:
                changed[name] = storable(text or "", name)
        languages = given.languages if isinstance(given.languages, tuple) else ()
        if len(languages) == 1:
            changed["language"] = storable(languages[0], "languages")
        elif languages:
            self.warn("field_ignored", "languages: only one language has an effect")
        if changed.get("prompt") and not prompt_hotwords(changed["prompt"]):
            message = "prompt: only a list of words or short phrases has an effect, as hotwords"
            self.warn("prompt_ignored", message)
        if given.keywords is not UNSET:
            changed["keywords"] = storable_hotwords(given.keywords or (), "keywords")
        self.session = replace(self.session, **changed)


# ------------------------------------------------------------------------- fields without effect

_KNOWN: Final[Mapping[str, type[Struct]]] = {
    "": _Session,
    "audio": _Audio,
    "audio.input": _Input,
    "audio.input.format": _Format,
    **dict.fromkeys(("audio.input.transcription", "input_audio_transcription"), _Transcription),
    **dict.fromkeys(("audio.input.turn_detection", "turn_detection"), _TurnDetection),
}
"""The declaration of each object of the configuration, by its path."""
_OF_THE_SERVER: Final = ("object", "id")
"""Fields of a session that clients send back."""


def _ignored(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if fields.get("include"):
        yield "field_ignored", "include: no model returns log probabilities of tokens"
    if fields.get("type") == "realtime":
        yield "responses_unavailable", "this server transcribes and makes no responses"
    for name in shown_names(_unknown("", fields)):
        yield "field_ignored", f"{name}: this field has no effect"


def _unknown(path: str, fields: Mapping[str, Any]) -> Iterator[str]:
    """Names of fields that are not in the configuration."""
    known = _KNOWN[path].__struct_fields__ + (() if path else _OF_THE_SERVER)
    for name, value in fields.items():
        below = f"{path}.{name}" if path else name
        if name not in known:
            if value not in (None, [], {}, ""):
                yield re.sub(r"[^\x20-\x7e]", "?", below)
        elif isinstance(value, dict) and below in _KNOWN:
            yield from _unknown(below, value)
