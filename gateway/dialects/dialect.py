"""What every dialect is: a translator between one client protocol and the session's events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.session import events as e
from wire.messages import Lane

ClientEvent = e.Start | e.Chunk | e.Finish


class MessageError(ValueError):
    """A client's message that is no message. ``code`` and the text are the answer.

    ``fatal``: the dialect has no way to say so, and the connection is closed with the text.
    """

    def __init__(
        self,
        message: str,
        code: str = "bad_message",
        chunk_index: int | None = None,
        *,
        fatal: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.chunk_index = chunk_index
        self.fatal = fatal


class Traits(Protocol):
    """What a dialect means for its sessions."""

    name: str
    """For operators, and stored with the session unless it is the native one."""
    resumable: bool
    """Whether its clients can come back to a session and can be told that it is stored. If not,
    a lost connection ends the session, and a ``Start`` after ``Finish`` begins another."""
    lane: Lane
    """``bulk``: its audio waits behind that of people who are speaking."""


class Dialect(Traits, Protocol):
    """One connection's dialect. Translates, and decides nothing but how things are said; what it
    remembers is only what its protocol leaves unsaid."""

    @property
    def stays_open(self) -> bool:
        """Whether the connection goes on after the session that has just ended, with another."""

    def parse(self, message: str | bytes) -> Sequence[ClientEvent]:
        """One WebSocket message from the client, as events in order.

        Raises:
            MessageError: with the error answer's code and text.
        """

    def encode(self, answer: e.Answer) -> Sequence[str]:
        """``answer`` as messages that the client reads; none if it has no use for it."""
