"""Publications of the broker for persistence: ``[topic][sequence][frames of the message]``.

The sequence is 8 bytes, big-endian. It counts the publications of one broker epoch over both
topics, so that a subscriber to both can count lost ones. The sequence only makes a loss visible:
gateways send unconfirmed data again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wire import codec
from wire.messages import PublishedRecord, PublishedResult

TOPIC_RESULT: Final = b"result"
TOPIC_RECORD: Final = b"record"
TOPICS: Final = (TOPIC_RESULT, TOPIC_RECORD)
SEQUENCE_BYTES: Final = 8

Publication = PublishedResult | PublishedRecord


def topic_of(message: Publication) -> bytes:
    return TOPIC_RESULT if isinstance(message, PublishedResult) else TOPIC_RECORD


def encode(sequence: int, message: Publication) -> list[bytes]:
    """Return the frames for the XPUB socket. ``sequence`` is 0 to 2**64 - 1."""
    number = sequence.to_bytes(SEQUENCE_BYTES, "big")
    return [topic_of(message), number, *codec.encode(message)]


def decode(frames: Sequence[bytes]) -> tuple[int, Publication]:
    """Return the sequence and the message in ``frames``.

    Raises:
        WireError: if ``encode`` cannot have produced them.
    """
    if len(frames) < 2 or len(frames[1]) != SEQUENCE_BYTES:
        raise codec.WireError("publication: not enough frames, or no sequence number")
    message = codec.decode(frames[2:])
    if not isinstance(message, PublishedResult | PublishedRecord):
        raise codec.WireError(f"publication: {type(message).__name__} is not published")
    if frames[0] != topic_of(message):
        raise codec.WireError(f"publication: topic {frames[0]!r} is not that of its message")
    return int.from_bytes(frames[1], "big"), message
