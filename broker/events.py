"""Inputs (events) and outputs (actions) of the routing core, as plain data."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from wire.messages import Lane, Message
from wire.publication import Publication

Side = Literal["front", "back"]
"""The socket of gateways and persistence, or that of workers."""


class _Addressed(Struct, frozen=True):
    """A message, and the routing id of the peer that it comes from or goes to."""

    side: Side
    identity: bytes
    message: Message


# ---------------------------------------------------------------------------------------- events


class Received(_Addressed, frozen=True):
    """A message has arrived."""


class Rejected(Struct, frozen=True):
    """Frames that could not be decoded."""

    side: Side
    identity: bytes


class Unsent(Struct, frozen=True):
    """The socket refused an action: the peer is unknown, or a queue is full."""

    action: Send | Publish


class SubscriptionChanged(Struct, frozen=True):
    """The first subscriber of topics that begin with ``prefix`` came, or the last one left."""

    prefix: bytes
    present: bool


class Tick(Struct, frozen=True):
    """Time has passed. Due about twenty times a second, after the messages received before it."""


Event = Received | Rejected | Unsent | SubscriptionChanged | Tick

# --------------------------------------------------------------------------------------- actions


class Send(_Addressed, frozen=True):
    """Send without waiting; report a refusal as ``Unsent``."""


class Publish(Struct, frozen=True):
    """Publish without waiting; report a refusal as ``Unsent``."""

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


Action = Send | Publish | Count | Answered | LeaseEnded
