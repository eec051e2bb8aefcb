"""The interface of a dialect: a translator between one client protocol and a session's events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.session import events as e
from gateway.session.limits import Traits


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message without a meaning at this point of the protocol. It is counted by ``reason`` and
    not answered."""

    reason: str


class MessageError(ValueError):
    """A message of the client is malformed. ``code`` and the text are the error answer.

    ``fatal``: the protocol has no error answer, so the connection is closed with the text.
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


class Dialect(Traits, Protocol):
    """The dialect of one connection. It translates and decides nothing; its only state is what the
    protocol leaves implicit."""

    @property
    def stays_open(self) -> bool:
        """Whether the connection stays open for another session after the one that ended."""

    def parse(self, message: str | bytes) -> Sequence[e.ClientEvent | Ignored]:
        """Translate one WebSocket message of the client into events, in order.

        Raises:
            MessageError: with the code and the text of the error answer.
        """

    def encode(self, answer: e.Answer) -> Sequence[str]:
        """Translate ``answer`` into WebSocket text messages; none if the protocol has none."""
