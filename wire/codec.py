"""Core: frames of the bus, ``[kind and version: 2 bytes][header: msgpack][PCM, jobs only]``.

Unknown fields are ignored and missing ones take their defaults, so that adjacent releases
understand each other (see ``wire.versions``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgpack
from msgspec.structs import asdict

from wire import messages as m
from wire import versions
from wire.validation import WireError, convert

__all__ = ["WireError", "decode", "encode", "tag_of"]

HEADER_BYTES_MAX = 1 << 20
"""Largest header from a gateway, a worker or persistence …"""
PASSED_ON_BYTES_MAX = HEADER_BYTES_MAX + (1 << 19)
"""… and from the broker, which adds names, and token times on a session's timeline."""
PACKER_BYTES = 1 << 12
"""First size of the buffer of a header that is packed; it grows."""
ITEMS_MAX = 1 << 14
"""Most items in one list or map of a header."""
PCM_BYTES_MAX = 60 * m.SAMPLE_RATE_HZ * m.BYTES_PER_SAMPLE
"""Longest utterance, 60 s. The gateway's endpointer cuts far below."""

_KINDS: dict[bytes, type[m.Message]] = {
    b"H": m.Hello,
    b"J": m.Job,
    b"C": m.Cancel,
    b"E": m.Record,
    b"M": m.Claim,
    b"N": m.Claimed,
    b"W": m.Welcome,
    b"V": m.Refused,
    b"R": m.Result,
    b"S": m.Stored,
    b"L": m.Load,
    b"Y": m.Ready,
    b"B": m.Heartbeat,
    b"A": m.WorkerResult,
    b"D": m.MarkArrived,
    b"X": m.Bye,
    b"K": m.WorkerJob,
    b"T": m.Mark,
    b"P": m.PublishedResult,
    b"Q": m.PublishedRecord,
}
_FROM_BROKER = frozenset({m.Result, m.WorkerJob, m.Stored, m.PublishedResult, m.PublishedRecord})
_WITH_PCM = (m.Job, m.WorkerJob)
_TAGS = {cls: kind + bytes([versions.VERSION_MAX]) for kind, cls in _KINDS.items()}
_CLASSES = {tag: cls for cls, tag in _TAGS.items()}


def encode(message: m.Message) -> list[bytes]:
    """Return the frames of ``message``, without routing id. PCM is not copied."""
    tag = _TAGS[type(message)]
    header = asdict(message)
    if isinstance(message, _WITH_PCM):
        del header["pcm"]
        return [tag, _pack(header), message.pcm]
    return [tag, _pack(header)]


def tag_of(kind: type[m.Message]) -> bytes:
    """Return the first frame of messages of this class."""
    return _TAGS[kind]


def decode(frames: Sequence[bytes]) -> m.Message:
    """Return the message in ``frames``, which are without routing id and may be anything.

    Raises:
        WireError: for an unknown kind or version, a limit, and a missing or invalid field.
    """
    cls = _CLASSES.get(frames[0]) if frames else None
    if cls is None:
        raise WireError(f"unknown kind or version: {frames[0][:2] if frames else None!r}")
    name = cls.__name__
    with_pcm = cls in _WITH_PCM
    if len(frames) != 2 + with_pcm:
        raise WireError(f"{name}: wrong number of frames")
    if len(frames[1]) > (PASSED_ON_BYTES_MAX if cls in _FROM_BROKER else HEADER_BYTES_MAX):
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
    return convert(header, cls, name)


def _pack(header: dict[str, Any]) -> bytes:
    # A packer cannot be shared between threads. Its default buffer of 256 KiB is slow to allocate.
    return cast(bytes, msgpack.Packer(default=asdict, buf_size=PACKER_BYTES).pack(header))


def _unpack(data: bytes) -> Any:
    try:
        # Strings and byte strings are at most as long as ``data``.
        return msgpack.unpackb(data, max_array_len=ITEMS_MAX, max_map_len=ITEMS_MAX, max_ext_len=0)
    except (ValueError, msgpack.UnpackException, RecursionError, TypeError) as error:
        raise WireError(f"header is not msgpack: {type(error).__name__}") from error
