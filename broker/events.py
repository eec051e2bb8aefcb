"""Inputs (events) and outputs (actions) of the routing core, as plain data."""

from __future__ import annotations

from msgspec import Struct

from wire.messages import Lane, Message
from wire.publication import Publication


class _Addressed(Struct, frozen=True):
    """A message, and the routing id of the peer that it comes from or goes to."""

    identity: bytes
    message: Message


# ---------------------------------------------------------------------------------------- events


class FrontReceived(_Addressed, frozen=True):
    """A message on the front socket, from a gateway or from persistence."""


class BackReceived(_Addressed, frozen=True):
    """A message on the back socket, from a worker."""


class FrontRejected(Struct, frozen=True):
    """Frames on the front socket that could not be decoded."""

    identity: bytes


class BackRejected(Struct, frozen=True):
    """Frames on the back socket that could not be decoded."""

    identity: bytes


class FrontUnsent(_Addressed, frozen=True):
    """The socket refused a ``SendFront``: the peer is unknown or its queue is full."""


class BackUnsent(_Addressed, frozen=True):
    """The socket refused a ``SendBack``: the peer is unknown or its queue is full."""


class Unpublished(Struct, frozen=True):
    """The socket refused a ``Publish``: the queue of a subscriber is full."""

    message: Publication


class SubscriptionChanged(Struct, frozen=True):
    """The first subscriber of topics that begin with ``prefix`` came, or the last one left."""

    prefix: bytes
    present: bool


class Tick(Struct, frozen=True):
    """Time has passed. Due about twenty times a second, after the messages received before it."""


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


class SendFront(_Addressed, frozen=True):
    """Send to a gateway without waiting; report a refusal as ``FrontUnsent``."""


class SendBack(_Addressed, frozen=True):
    """Send to a worker without waiting; report a refusal as ``BackUnsent``."""


class Publish(Struct, frozen=True):
    """Publish without waiting; report a refusal as ``Unpublished``."""

    message: Publication


class Count(Struct, frozen=True):
    """Increment the incident counter of ``reason``: something was dropped or went wrong."""

    reason: str


class Answered(Struct, frozen=True):
    """A final job has ended with an answer. For metrics and traces."""

    lane: Lane
    outcome: str
    """``text``, or the code of its error."""
    queue_ms: int
    session_id: str
    seq: int
    received_s: float


class LeaseEnded(Struct, frozen=True):
    """A worker or gateway was silent for too long, and is served no more. For the log."""

    identity: bytes
    jobs: int
    """Jobs that it held, or that wait for it."""


Action = SendFront | SendBack | Publish | Count | Answered | LeaseEnded
