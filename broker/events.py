"""What the routing core is told (events) and what it asks for (actions), as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

from wire.messages import Lane, Message
from wire.publication import Publication

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def event(cls: type[T]) -> type[T]:
    """A dataclass that nobody changes; see ``wire.plain.plain_data`` for why mypy sees to that."""
    return dataclass(slots=True, unsafe_hash=True)(cls)


# ---------------------------------------------------------------------------------------- events


@event
class FrontReceived:
    """A message on the gateways' socket, which persistence uses as well."""

    identity: bytes
    message: Message


@event
class BackReceived:
    """A message on the workers' socket."""

    identity: bytes
    message: Message


@event
class FrontRejected:
    """Frames on the gateways' socket that were no message."""

    identity: bytes


@event
class BackRejected:
    """Frames on the workers' socket that were no message."""

    identity: bytes


@event
class FrontUnsent:
    """A ``SendFront`` that the socket refused: unknown peer, or its queue is full."""

    identity: bytes
    message: Message


@event
class BackUnsent:
    """A ``SendBack`` that the socket refused: unknown peer, or its queue is full."""

    identity: bytes
    message: Message


@event
class Unpublished:
    """A ``Publish`` that the socket refused: a subscriber's queue is full."""

    message: Publication


@event
class SubscriptionChanged:
    """A subscriber wants, or the last one no longer wants, topics that begin with ``prefix``."""

    prefix: bytes
    present: bool


@event
class Tick:
    """Time has passed. Tell it about twenty times a second, after what has been received."""


Event = (
    FrontReceived
    | BackReceived
    | FrontRejected
    | BackRejected
    | FrontUnsent
    | BackUnsent
    | Unpublished
    | SubscriptionChanged
    | Tick
)

# --------------------------------------------------------------------------------------- actions


@event
class SendFront:
    """Send to a gateway without waiting; a refusal is told as ``FrontUnsent``."""

    identity: bytes
    message: Message


@event
class SendBack:
    """Send to a worker without waiting; a refusal is told as ``BackUnsent``."""

    identity: bytes
    message: Message


@event
class Publish:
    """Publish without waiting; a refusal is told as ``Unpublished``."""

    message: Publication


@event
class Count:
    """Something was dropped or went wrong, for this reason."""

    reason: str


@event
class Answered:
    """A final job has ended with an answer."""

    lane: Lane
    outcome: str
    """``text``, or the code of its error."""
    queue_ms: int
    session_id: str
    seq: int
    received_s: float


Action = SendFront | SendBack | Publish | Count | Answered
