"""The states of a client session, which client events each takes, and the session's limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.session import events as e


class State(Enum):
    NEW = "new"
    """Connected; nothing started."""
    ACTIVE = "active"
    """Taking audio."""
    FINISHING = "finishing"
    """No more audio; results are awaited."""
    CONFIRMING = "confirming"
    """The text is complete; waiting, briefly, for COMMIT."""
    DONE = "done"
    """Over; the final result can be told again. What is not stored yet is the outbox's business."""


LEGAL: dict[State, frozenset[type]] = {
    State.NEW: frozenset({e.Start}),
    State.ACTIVE: frozenset({e.Chunk, e.Finish}),
    # A client that comes back may not know that its finish arrived.
    State.FINISHING: frozenset({e.Finish}),
    State.CONFIRMING: frozenset({e.Finish}),
    State.DONE: frozenset({e.Finish}),
}
CLIENT_EVENTS = (e.Start, e.Chunk, e.Finish)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Limits of one session. Fields without a default are filled from ``gateway.settings``."""

    segment_deadline_ms: int
    """From a segment's end to its text; then the segment fails with ``deadline``."""
    unanswered_audio_ms_max: int = 120_000
    """Audio awaiting results; then the gateway stops reading the client's socket."""
    resume_wait_s: float
    """How long a session waits for a client that has gone; then it ends as ``abandoned``."""
    stored_wait_s: float = 2.0
    """How long final_result waits for COMMIT; then it says ``stored: false``."""
    partial_every_ms: int = 600
    """New audio between two partials of an open utterance."""
    chunk_utterance_ms_max: int = 30_000
    """Longest chunk in mode chunk; then ``audio_too_long`` for that chunk."""
    file_boundary_wait_extra_s: float = 0.5
    file_boundary_wait_s_max: float = 10.0
    """How long a file that ended in speech waits for the next one, besides its own duration (a
    recorder sends the next when it is full); then its utterance ends there."""
