"""What the routing core is told (events) and what it asks for (actions), as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from wire.messages import Message
from wire.publication import Publication

# ---------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class FrontReceived:
    """A message on the gateways' socket, which persistence uses as well."""

    identity: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class BackReceived:
    """A message on the workers' socket."""

    identity: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class FrontRejected:
    """Frames on the gateways' socket that were no message."""

    identity: bytes


@dataclass(frozen=True, slots=True)
class BackRejected:
    """Frames on the workers' socket that were no message."""

    identity: bytes


@dataclass(frozen=True, slots=True)
class FrontUnsent:
    """A ``SendFront`` that the socket refused: unknown peer, or its queue is full."""

    identity: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class BackUnsent:
    """A ``SendBack`` that the socket refused: unknown peer, or its queue is full."""

    identity: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A ``Publish`` that the socket refused: a subscriber's queue is full."""

    message: Publication


@dataclass(frozen=True, slots=True)
class SubscriptionChanged:
    """A subscriber wants, or the last one no longer wants, topics that begin with ``prefix``."""

    prefix: bytes
    present: bool


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class SendFront:
    """Send to a gateway without waiting; a refusal is told as ``FrontUnsent``."""

    identity: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class SendBack:
    """Send to a worker without waiting; a refusal is told as ``BackUnsent``."""

    identity: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish without waiting; a refusal is told as ``Unpublished``."""

    message: Publication


@dataclass(frozen=True, slots=True)
class Count:
    """Something was dropped or went wrong, for this reason."""

    reason: str


Action = SendFront | SendBack | Publish | Count
