"""The limits of one session, and the traits of its protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from wire.messages import JOB_DEADLINE_MS_MAX, Lane


class Traits(Protocol):
    """Properties of a protocol that its sessions depend on."""

    name: str
    """Shown to operators, and stored with the session unless it is the native one."""
    resumable: bool
    """Clients can resume a session and learn whether it is stored. If not, a lost connection ends
    the session, and a ``Start`` after ``Finish`` begins another."""
    lane: Lane
    """``bulk``: its audio is recognised after that of live speech."""


@dataclass(slots=True)
class FileTraits:
    """Traits of the sessions of an API for files. Live speech is recognised first."""

    name: str
    resumable: bool = False
    lane: Lane = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Limits of one session. Fields without a default are filled from ``gateway.settings``."""

    segment_deadline_ms: int
    """From a segment's end to its text; then the segment fails with ``deadline``."""
    unanswered_audio_ms_max: int = 120_000
    """Audio that awaits results; then the gateway stops reading the client's socket."""
    speaker_similarity_min: float
    """Least mean cosine of the speaker embeddings of two groups of utterances of one speaker. It
    depends on the speaker model."""
    resume_wait_s: float
    """Time that a session waits for its client to resume; then it ends as ``abandoned``."""
    stored_wait_s: float = 2.0
    """Time that final_result waits for COMMIT; then it has ``stored: false``."""
    partial_every_ms: int = 600
    """New audio between two partial results of an open utterance."""
    chunk_utterance_ms_max: int = 30_000
    """Longest chunk in mode chunk; then ``audio_too_long`` for that chunk."""
    file_boundary_wait_extra_s: float = 0.5
    file_boundary_wait_s_max: float = 10.0
    """Time that a file that ended in speech waits for the next one, in addition to its own duration
    (a recorder sends a file when it is full); then its utterance ends there."""

    def for_protocol(self, traits: Traits) -> SessionLimits:
        """Return these limits for sessions of a protocol with these ``traits``."""
        limits = self
        if not traits.resumable:
            limits = replace(limits, resume_wait_s=0.0, stored_wait_s=0.0)
        if traits.lane == "bulk":
            limits = replace(limits, segment_deadline_ms=JOB_DEADLINE_MS_MAX)
        return limits
