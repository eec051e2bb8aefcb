"""The interface of a dialect: a translator between one client protocol and a session's events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.session import events as e
from gateway.session.limits import Traits
from wire.messages import Lane


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that has no meaning in this state of the protocol. It is counted by ``reason`` and
    not answered."""

    reason: str


BEHIND_THE_END = Ignored("behind_the_end")
"""Audio or an end that follows the end of a recording."""
WAITING_MAX = 2_000
"""Requests of a connection, such as to end an utterance, that are answered after pending texts:
more than there are turns of 100 ms in ``SessionLimits.unanswered_audio_ms_max``."""
TOO_MANY = Ignored("too_many_waiting")
"""The answer to a request beyond the limit."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A text message that the dialect sends at once, because only the protocol defines it.
    ``problem``: the code of an error answer, for its counter."""

    text: str
    problem: str | None = None


Parsed = e.ClientEvent | Ignored | Reply
Query = Mapping[str, Sequence[str]]
"""The query of a connection's address: each name with all of its values."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """The request that opens a connection."""

    query: Query = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers by lower-case name, without access tokens."""
    subprotocols: Sequence[str] = ()


class MessageError(ValueError):
    """A message or a request of the client is malformed. ``code`` and the text are the error
    answer.

    ``param``: the name of the invalid field, with which the text begins. ``fatal``: the protocol
    has no error answer, so the connection is closed with the text.
    """

    def __init__(
        self,
        message: str,
        code: str = "bad_message",
        chunk_index: int | None = None,
        *,
        param: str | None = None,
        fatal: bool = False,
    ) -> None:
        super().__init__(f"{param}: {message}" if param else message)
        self.code = code
        self.chunk_index = chunk_index
        self.param = param
        self.fatal = fatal


class Dialect(Traits, Protocol):
    """The dialect of one connection. It translates and decides nothing; its only state is what the
    protocol leaves implicit."""

    resumable: bool = False
    lane: Lane = "live"
    stays_open: bool = True
    """Whether the connection stays open for another session after the one that ended."""
    may_start_again: bool = False
    """Whether the connection stays open after a refused start, for a corrected one."""
    parameters: frozenset[str] | None = frozenset({"model", "resume"})
    """Parameters of the address that have an effect. The client is warned of others. None: the
    dialect itself does so."""

    def served_name(self, asked: str) -> str:
        """Return the served name that ``?model=`` of the address asks for; empty: any. Names of
        another service's models are not served names."""
        return asked

    def greeting(self) -> Sequence[str]:
        """The messages that the server sends first."""
        return ()

    def parse(self, message: str | bytes) -> Sequence[Parsed]:
        """Translate one WebSocket message of the client into events and replies, in order.

        Raises:
            MessageError: with the code and the text of the error answer.
        """

    def hung_up(self) -> Sequence[e.ClientEvent]:
        """The client has closed the connection properly. Returns events if that ends a session of
        this protocol; otherwise the session is interrupted."""
        return ()

    def encode(self, answer: e.Answer) -> Sequence[str]:
        """Translate ``answer`` into WebSocket text messages; none if the protocol has none."""
