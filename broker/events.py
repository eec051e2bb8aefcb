"""What the routing core is told (events) and what it asks for (actions), as plain data."""

from __future__ import annotations

from msgspec import Struct

from wire.messages import Lane, Message
from wire.publication import Publication

# ---------------------------------------------------------------------------------------- events


class FrontReceived(Struct, frozen=True):
    """A message on the gateways' socket, which persistence uses as well."""

    identity: bytes
    message: Message


class BackReceived(Struct, frozen=True):
    """A message on the workers' socket."""

    identity: bytes
    message: Message


class FrontRejected(Struct, frozen=True):
    """Frames on the gateways' socket that were no message."""

    identity: bytes


class BackRejected(Struct, frozen=True):
    """Frames on the workers' socket that were no message."""

    identity: bytes


class FrontUnsent(Struct, frozen=True):
    """A ``SendFront`` that the socket refused: unknown peer, or its queue is full."""

    identity: bytes
    message: Message


class BackUnsent(Struct, frozen=True):
    """A ``SendBack`` that the socket refused: unknown peer, or its queue is full."""

    identity: bytes
    message: Message


class Unpublished(Struct, frozen=True):
    """A ``Publish`` that the socket refused: a subscriber's queue is full."""

    message: Publication


class SubscriptionChanged(Struct, frozen=True):
    """A subscriber wants, or the last one no longer wants, topics that begin with ``prefix``."""

    prefix: bytes
    present: bool


class Tick(Struct, frozen=True):
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


class SendFront(Struct, frozen=True):
    """Send to a gateway without waiting; a refusal is told as ``FrontUnsent``."""

    identity: bytes
    message: Message


class SendBack(Struct, frozen=True):
    """Send to a worker without waiting; a refusal is told as ``BackUnsent``."""

    identity: bytes
    message: Message


class Publish(Struct, frozen=True):
    """Publish without waiting; a refusal is told as ``Unpublished``."""

    message: Publication


class Count(Struct, frozen=True):
    """Something was dropped or went wrong, for this reason."""

    reason: str


class Answered(Struct, frozen=True):
    """A final job has ended with an answer."""

    lane: Lane
    outcome: str
    """``text``, or the code of its error."""
    queue_ms: int
    session_id: str
    seq: int
    received_s: float


Action = SendFront | SendBack | Publish | Count | Answered
