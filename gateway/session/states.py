"""The states of a session."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """``gateway.session.core.TRANSITIONS`` is the table of transitions."""

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
