"""States of a session, and the limits of one session."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """``gateway.session.core.TRANSITIONS`` is the table of what leads from one to another."""

    NEW = "new"
    """Connected, not started."""
    ACTIVE = "active"
    """Accepts audio."""
    FINISHING = "finishing"
    """The audio has ended. Results are pending."""
    CONFIRMING = "confirming"
    """The transcript is complete. COMMIT is pending, for a limited time."""
    DONE = "done"
    """The final result can be sent again. The outbox keeps records that are not stored yet."""
    RELEASED = "released"
    """Deleted, failed, or continued at another gateway. Nothing more is sent or stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Limits of one session. Fields without a default are filled from ``gateway.settings``."""

    segment_deadline_ms: int
    """From a segment's end to its text; then the segment fails with ``deadline``."""
    unanswered_audio_ms_max: int = 120_000
    """Audio that awaits results; then the gateway stops reading the client's socket."""
    resume_wait_s: float
    """How long a session waits for its client to resume; then it ends as ``abandoned``."""
    stored_wait_s: float = 2.0
    """How long final_result waits for COMMIT; then it says ``stored: false``."""
    partial_every_ms: int = 600
    """New audio between two partial results of an open utterance."""
    chunk_utterance_ms_max: int = 30_000
    """Longest chunk in mode chunk; then ``audio_too_long`` for that chunk."""
    file_boundary_wait_extra_s: float = 0.5
    file_boundary_wait_s_max: float = 10.0
    """How long a file that ended in speech waits for the next one, besides its own duration (a
    recorder sends the next when it is full); then its utterance ends there."""
