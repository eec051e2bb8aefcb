"""Frames of the bus: ``[kind and protocol version: 2 bytes][header: msgpack][PCM, jobs only]``.

``decode`` trusts nothing: it checks every field against the message's own annotations and raises
``WireError`` for anything else, never another exception. Headers and checkers are made once per
class from those annotations, so that a message and its validation cannot drift apart.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgpack

from wire import messages as m
from wire.checkers import ITEMS_MAX, WireError, checker_of
from wire.plain import plain_of

__all__ = ["WireError", "decode", "encode", "tag_of"]

PROTOCOL_VERSION = 1

HEADER_BYTES_MAX = 1 << 20
"""Largest msgpack header from a gateway, a worker or persistence; the answer to a larger one is
``WireError``."""
PASSED_ON_BYTES_MAX = HEADER_BYTES_MAX + (1 << 19)
"""Largest from the broker: a header that just fits, and what the broker adds to it, names and token
times on a session's timeline, fit, too."""
PCM_BYTES_MAX = 60 * m.SAMPLE_RATE_HZ * m.BYTES_PER_SAMPLE
"""Longest utterance, 60 s; the gateway's segmenter cuts well below."""

_KINDS: dict[bytes, type] = {
    b"H": m.Hello,
    b"J": m.Job,
    b"C": m.Cancel,
    b"E": m.Record,
    b"M": m.Claim,
    b"N": m.Claimed,
    b"W": m.Welcome,
    b"R": m.Result,
    b"S": m.Stored,
    b"L": m.Load,
    b"Y": m.Ready,
    b"B": m.Heartbeat,
    b"A": m.WorkerResult,
    b"X": m.Bye,
    b"K": m.WorkerJob,
    b"P": m.PublishedResult,
    b"Q": m.PublishedRecord,
}
_TAGS = {cls: kind + bytes([PROTOCOL_VERSION]) for kind, cls in _KINDS.items()}


def encode(message: m.Message) -> list[bytes]:
    """Frames of ``message``, without routing id. PCM is passed on uncopied."""
    tag, header_of, with_pcm = _encoders[type(message)]
    header = msgpack.packb(header_of(message), use_bin_type=True)
    # mypy does not know that the table tells which messages have PCM.
    return [tag, header, message.pcm] if with_pcm else [tag, header]  # type: ignore[union-attr]


def tag_of(kind: type) -> bytes:
    """The first frame of messages of this class."""
    return _TAGS[kind]


def decode(frames: Sequence[bytes]) -> m.Message:
    """The message in ``frames`` (without routing id).

    Raises:
        WireError: for anything that ``encode`` of this protocol version cannot have produced.
    """
    try:
        name, check, with_pcm, header_bytes_max = _decoders[frames[0]]
    except (IndexError, KeyError):
        raise WireError(_what_is_wrong_with(frames)) from None
    if len(frames) != 2 + with_pcm:
        raise WireError(f"{name}: wrong number of frames")
    if len(frames[1]) > header_bytes_max:
        raise WireError(f"{name}: header too large")
    header = _unpack(frames[1])
    if with_pcm:
        pcm = frames[2]
        if len(pcm) > PCM_BYTES_MAX or len(pcm) % m.BYTES_PER_SAMPLE:
            raise WireError(f"{name}: bad PCM length {len(pcm)}")
        if isinstance(header, dict):
            if "pcm" in header:
                raise WireError(f"{name}: PCM in the header")
            header["pcm"] = bytes(pcm)
    return typing.cast(m.Message, check(header))


def _what_is_wrong_with(frames: Sequence[bytes]) -> str:
    """Why the first frame names no message."""
    if not frames or len(frames[0]) != 2:
        return "not enough frames"
    if frames[0][1] != PROTOCOL_VERSION:
        return f"protocol version {frames[0][1]} is not {PROTOCOL_VERSION}"
    return f"unknown kind {frames[0][:1]!r}"


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=PASSED_ON_BYTES_MAX,
            max_bin_len=PASSED_ON_BYTES_MAX,
            max_array_len=ITEMS_MAX,
            max_map_len=ITEMS_MAX,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError, TypeError) as error:
        raise WireError(f"header is not msgpack: {type(error).__name__}") from error


_WITH_PCM = frozenset(c for c in _KINDS.values() if any(f.name == "pcm" for f in fields(c)))
_encoders = {
    cls: (tag, plain_of(cls, without=("pcm",)), cls in _WITH_PCM) for cls, tag in _TAGS.items()
}
_FROM_BROKER = frozenset({m.Result, m.WorkerJob, m.Stored, m.PublishedResult, m.PublishedRecord})
_decoders = {
    tag: (
        cls.__name__,
        checker_of(cls, cls.__name__),
        cls in _WITH_PCM,
        PASSED_ON_BYTES_MAX if cls in _FROM_BROKER else HEADER_BYTES_MAX,
    )
    for cls, tag in _TAGS.items()
}
