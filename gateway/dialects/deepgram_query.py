"""Core: the query of Deepgram's ``/v1/listen``, streamed or with a file.

An invalid value is refused. Answers contain a warning for each option that is unknown or has no
effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from msgspec import Struct

from gateway.audio.formats import RAW_SAMPLE_RATE_HZ_MAX, RAW_SAMPLE_RATE_HZ_MIN
from gateway.audio.wav import DeclaredAudio
from gateway.dialects.dialect import MessageError, Query
from gateway.dialects.fields import (
    LANGUAGE_CHARS_MAX,
    MODEL_CHARS_MAX,
    shown_names,
    storable,
    storable_hotwords,
)
from gateway.session import events as e
from gateway.session.endpointer import CLIENT_SILENCE_MS_MAX, Endpointing
from wire.messages import SAMPLE_RATE_HZ

RawEncoding = Literal["linear16", "linear32", "mulaw", "alaw"]
RAW_ENCODINGS: Final[tuple[RawEncoding, ...]] = ("linear16", "linear32", "mulaw", "alaw")
FILE_ENCODINGS: Final = ("flac", "opus", "ogg-opus", "amr-nb", "amr-wb")
"""Encodings in containers, which are recognised by their first bytes."""
CHANNELS_MAX: Final = 16
RAW_RATES_HZ: Final = (RAW_SAMPLE_RATE_HZ_MIN, RAW_SAMPLE_RATE_HZ_MAX)
ENDPOINTING_MS_MIN: Final = 300
"""Deepgram's default of 10 ms, and the 25 ms of LiveKit, end segments and not utterances. Here an
utterance is recognised as a whole, and shorter silences would cut words apart."""
UTTERANCE_END_MS_MAX: Final = 60_000

_TRUE: Final = frozenset({"true", "1", "yes", "on", ""})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_AUTOMATIC: Final = frozenset({"", "multi", "auto", "detect"})
"""Values that let the model detect the language."""
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("version", "tag", "extra", "mip_opt_out", "no_delay", "access_token", "token"),
        *("callback_method", "diarize_version", "diarize_model", "tier"),
    }
)
"""Options that do not change the text, or that always apply: no audio is kept or used for training,
and results are not delayed."""
_NOT_OFFERED: Final = frozenset(
    {
        *("callback", "detect_entities", "dictation", "filler_words", "profanity_filter"),
        *("redact", "replace", "search", "measurements", "paragraphs", "utterances", "utt_split"),
        *("summarize", "topics", "intents", "sentiment", "custom_topic", "custom_intent"),
        *("custom_topic_mode", "custom_intent_mode", "alternatives"),
        "language_hint",
    }
)


class Warned(Struct, frozen=True, kw_only=True):
    """A request of the client that has no effect."""

    parameter: str
    type: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    start: e.Start
    """The start of the session with these options."""
    vad_events: bool
    speech_final: bool
    """Whether results mark the end of an utterance."""
    warned: tuple[Warned, ...]


def parse_query(query: Query, session_id: str) -> Options:
    """Return the options of ``query``. Raises ``MessageError`` if a value is invalid."""
    return _Reader(query).options(session_id)


def refusal(code: str, message: str, request_id: str) -> dict[str, Any]:
    """The body of an error in Deepgram's form, whose codes are in capitals."""
    code = "INVALID_AUTH" if code == "unauthorized" else code.upper()
    return {"err_code": code, "err_msg": message, "request_id": request_id}


class _Reader:
    def __init__(self, query: Query) -> None:
        self._query = query
        self._read: set[str] = set()
        self._warned: list[Warned] = []

    def options(self, session_id: str) -> Options:
        encoding, declared = self._audio()
        smart = self._flag("smart_format") or None
        silence_ms, speech_final = self._endpointing()
        utterance_end_ms = self._milliseconds("utterance_end_ms", UTTERANCE_END_MS_MAX)
        if not speech_final:
            # Without endpointing, this is the only silence that the client specifies.
            silence_ms = min(utterance_end_ms or CLIENT_SILENCE_MS_MAX, CLIENT_SILENCE_MS_MAX)
        start = e.Start(
            session_id=session_id,
            mode="stream",
            sample_rate_hz=(declared.sample_rate_hz if encoding else None) or SAMPLE_RATE_HZ,
            language=self._language(),
            hotwords=self._hotwords(),
            partials=bool(self._flag("interim_results")),
            speakers=bool(self._flag("diarize")),
            model=self._text("model", MODEL_CHARS_MAX),
            model_optional=True,
            punctuation=self._flag("punctuate", smart),
            itn=self._flag("numerals", smart),
            encoded=encoding is None,
            declared_raw=encoding is not None,
            declared=declared,
            endpointing=Endpointing(silence_ms=silence_ms),
            speech_events=True,
            long_silence_ms=utterance_end_ms,
        )
        vad_events = bool(self._flag("vad_events"))
        self._others()
        return Options(
            start=start,
            vad_events=vad_events,
            speech_final=speech_final,
            warned=tuple(dict.fromkeys(self._warned)),
        )

    # -------------------------------------------------------------------------------------- values

    def _values(self, name: str) -> list[str]:
        self._read.add(name)
        return list(self._query.get(name, ()))

    def _value(self, name: str) -> str | None:
        """The last value, as Deepgram takes it; None: not given."""
        values = self._values(name)
        return values[-1].strip() if values else None

    def _text(self, name: str, chars_max: int) -> str:
        value = self._value(name) or ""
        if len(value) > chars_max:
            _refuse(name, f"at most {chars_max} characters")
        return storable(value, name)

    def _flag(self, name: str, default: bool | None = None) -> bool | None:
        value = self._value(name)
        if value is None:
            return default
        if value.lower() not in _TRUE | _FALSE:
            _refuse(name, "true or false")
        return value.lower() in _TRUE

    def _number(self, name: str, least: int, most: int) -> int | None:
        value = self._value(name)
        if not value:
            return None
        digits = value if value.isascii() and value.isdigit() and len(value) <= 9 else "-1"
        if not least <= int(digits) <= most:
            _refuse(name, f"an integer from {least} to {most}")
        return int(digits)

    def _milliseconds(self, name: str, most: int) -> int | None:
        """None: not given, ``false`` or 0."""
        value = (self._query.get(name) or [""])[-1]
        if value.lower() in _FALSE | {""}:
            self._read.add(name)
            return None
        return self._number(name, 1, most)

    def _warn(self, parameter: str, kind: str, message: str) -> None:
        self._warned.append(Warned(parameter=parameter, type=kind, message=message))

    # --------------------------------------------------------------------------------- single ones

    def _audio(self) -> tuple[RawEncoding | None, DeclaredAudio]:
        """The encoding of raw audio, and the form of any audio."""
        given = (self._value("encoding") or "").lower()
        encoding = next((raw for raw in RAW_ENCODINGS if raw == given), None)
        if given and encoding is None and given not in FILE_ENCODINGS:
            _refuse("encoding", "one of " + ", ".join((*RAW_ENCODINGS, *FILE_ENCODINGS)))
        limits = (1, 1_000_000) if encoding is None else RAW_RATES_HZ
        rate_hz = self._number("sample_rate", *limits)
        if encoding is not None and rate_hz is None:
            raise MessageError(f"sample_rate is required with encoding={encoding}")
        channels = self._number("channels", 1, CHANNELS_MAX)
        if self._flag("multichannel"):
            message = "all channels are recognised as one, in which speech on any of them is heard"
            self._warn("multichannel", "not_offered", message)
        return encoding, DeclaredAudio(
            sample_rate_hz=rate_hz, channels=channels, encoding=given or None
        )

    def _language(self) -> str:
        language = self._text("language", LANGUAGE_CHARS_MAX)
        # It may also be a list of languages to choose from.
        detect = self._value("detect_language") or ""
        if detect.lower() not in _TRUE | _FALSE:
            message = "the languages to detect are not restricted"
            self._warn("detect_language", "not_offered", message)
            return ""
        if self._flag("detect_language"):
            return ""
        return "" if language.lower() in _AUTOMATIC else language

    def _hotwords(self) -> tuple[str, ...]:
        """``keyterm``, and ``keywords`` without their boosts."""
        words = self._values("keyterm")
        for value in self._values("keywords"):
            word, mark, boost = value.rpartition(":")
            weighted = mark and _is_number(boost)
            words.append(word if weighted else value)
            if weighted:
                self._warn("keywords", "ignored", "weights of keywords are ignored")
        return storable_hotwords(dict.fromkeys(map(str.strip, words)), "keyterm, keywords")

    def _endpointing(self) -> tuple[int | None, bool]:
        """The silence that ends an utterance, and whether ends are reported (``speech_final``)."""
        value = (self._value("endpointing") or "").lower()
        if value in ("", "true"):
            return None, True
        if value in ("false", "0"):
            return None, False
        asked = self._number("endpointing", 1, 1_000_000)
        assert asked is not None
        silence_ms = min(max(asked, ENDPOINTING_MS_MIN), CLIENT_SILENCE_MS_MAX)
        if silence_ms != asked:
            self._warn("endpointing", "changed", f"{silence_ms} ms is used instead of {asked} ms")
        return silence_ms, True

    def _others(self) -> None:
        """Warn about options that have no effect."""
        unknown: list[str] = []
        for name, values in self._query.items():
            if name in self._read or name in _WITHOUT_EFFECT:
                continue
            if name not in _NOT_OFFERED:
                unknown.append(storable(name, "a name"))
            elif any(value.lower() not in _FALSE for value in values):
                self._warn(name, "not_offered", f"{name} has no effect here")
        for name in shown_names(unknown):
            self._warn(name, "unknown", "an option of this name has no effect")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _refuse(name: str, expected: str) -> NoReturn:
    raise MessageError(f"{name} must be {expected}")
