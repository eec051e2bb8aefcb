"""The recogniser protocol: utterances in, recognitions out, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from wire.messages import Abilities, Failure, Token

RECOGNITION_FAILED = "recognition_failed"
"""Code of the failure of a single utterance that the model cannot process."""
BATCH_JOBS_MAX = 512
"""Largest batch that the settings allow."""


class ModelLoadError(Exception):
    """The model cannot be loaded. The message is one line for the operator.

    ``final`` means that a setting is wrong, so a retry cannot succeed.
    """

    def __init__(self, message: str, *, final: bool) -> None:
        super().__init__(message)
        self.final = final


class Utterance(Struct, frozen=True, kw_only=True):
    """Audio to recognise: mono s16le 16 kHz ``pcm`` with the client's hints, empty if unset."""

    pcm: bytes
    language: str = ""
    hotwords: tuple[str, ...] = ()
    partial: bool = False
    """The audio is the beginning of an utterance."""
    speakers: bool = False
    """The recognition needs a speaker embedding, if there is a speaker model."""
    stream: tuple[str, int] | None = None
    """Session and segment of the utterance. Its partial jobs have the same value, and their audio
    is the beginning of this one's. None: there are no others."""
    punctuation: bool | None = None
    itn: bool | None = None
    """Whether the text should have punctuation, and be inverse text normalised; None: the default
    of the model and the settings."""
    context: str = ""
    """The end of the session's text before this utterance, if it is known."""


class Recognition(Struct, frozen=True, kw_only=True):
    """Exactly one of ``text`` and ``failure`` is set. Token times count from the audio's start."""

    text: str | None
    failure: Failure | None = None
    tokens: tuple[Token, ...] = ()
    language: str = ""
    """The language that the model detected; empty if it detects none."""
    confidence: float | None = None
    """The model's own estimate, from 0 to 1, that the text is right; None without one."""
    emotion: str = ""
    events: tuple[str, ...] = ()
    """As in ``wire.messages.Segment``."""
    embedding: bytes = b""
    """As in ``wire.messages.Result``."""


class Recognizer(Protocol):
    """A loaded model. Use it only on the thread that built it."""

    model: str
    """The model's name as the operator wrote it."""
    device: str
    """Where the model runs, such as ``cpu`` or ``cuda:0``."""

    @property
    def abilities(self) -> Abilities:
        """``batch_jobs`` is the largest batch that shares one pass, 1 if none does;
        ``asr_worker.recognizer.trial`` finds the best size."""

    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        """Return one recognition per utterance, in order. One that the model cannot process becomes
        a ``Recognition`` with a failure, and leaves the others unaffected."""
