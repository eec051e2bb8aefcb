"""Frames of the bus: ``[kind and protocol version: 2 bytes][header: msgpack][PCM, jobs only]``.

``decode`` trusts nothing: it checks every field against the message's own annotations and raises
``WireError`` for anything else, never another exception. Field checkers are built once per class
from those annotations, so that a message and its validation cannot drift apart.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import msgpack

from wire import messages as m

PROTOCOL_VERSION = 1

HEADER_BYTES_MAX = 1 << 20
"""Largest msgpack header; the answer to a larger one is ``WireError``."""
PCM_BYTES_MAX = 60 * m.SAMPLE_RATE_HZ * m.BYTES_PER_SAMPLE
"""Longest utterance, 60 s; the gateway's segmenter cuts well below."""
TEXT_CHARS_MAX = 1 << 16
ITEMS_MAX = 1 << 14
INTEGER_MAX = (1 << 53) - 1
"""Beyond this an integer would not survive JSON, the other protocol we speak."""

_KINDS: dict[bytes, type] = {
    b"H": m.Hello,
    b"J": m.Job,
    b"C": m.Cancel,
    b"E": m.Record,
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


class WireError(ValueError):
    """A peer sent frames that are no message of this protocol."""


def encode(message: m.Message) -> list[bytes]:
    """Frames of ``message``, without routing id. PCM is passed on uncopied."""
    header, pcm = _headers[type(message)](message)
    frames = [_TAGS[type(message)], msgpack.packb(header, use_bin_type=True)]
    if pcm is not None:
        frames.append(pcm)
    return frames


def decode(frames: Sequence[bytes]) -> m.Message:
    """The message in ``frames`` (without routing id).

    Raises:
        WireError: for anything that ``encode`` of this protocol version cannot have produced.
    """
    if len(frames) < 2 or len(frames[0]) != 2:
        raise WireError("not enough frames")
    if frames[0][1] != PROTOCOL_VERSION:
        raise WireError(f"protocol version {frames[0][1]} is not {PROTOCOL_VERSION}")
    cls = _KINDS.get(frames[0][:1])
    if cls is None:
        raise WireError(f"unknown kind {frames[0][:1]!r}")
    if len(frames) != (3 if cls in _WITH_PCM else 2):
        raise WireError(f"{cls.__name__}: wrong number of frames")
    if len(frames[1]) > HEADER_BYTES_MAX:
        raise WireError(f"{cls.__name__}: header too large")
    header = _unpack(frames[1])
    if cls in _WITH_PCM:
        pcm = frames[2]
        if len(pcm) > PCM_BYTES_MAX or len(pcm) % m.BYTES_PER_SAMPLE:
            raise WireError(f"{cls.__name__}: bad PCM length {len(pcm)}")
        if isinstance(header, dict):
            if "pcm" in header:
                raise WireError(f"{cls.__name__}: PCM in the header")
            header["pcm"] = bytes(pcm)
    message = _checkers[cls](header, cls.__name__)
    return typing.cast(m.Message, message)


def _unpack(data: bytes) -> Any:
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=HEADER_BYTES_MAX,
            max_bin_len=HEADER_BYTES_MAX,
            max_array_len=ITEMS_MAX,
            max_map_len=ITEMS_MAX,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException, RecursionError, TypeError) as error:
        raise WireError(f"header is not msgpack: {type(error).__name__}") from error


# ---------------------------------------------------------- headers and checkers, from annotations

_Checker = Callable[[Any, str], Any]
_Header = Callable[[Any], tuple[dict[str, Any], bytes | None]]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _header_of(cls: type) -> _Header:
    names = [f.name for f in fields(cls) if f.name != "pcm"]
    has_pcm = any(f.name == "pcm" for f in fields(cls))

    def build(message: Any) -> tuple[dict[str, Any], bytes | None]:
        header = {name: _plain(getattr(message, name)) for name in names}
        return header, message.pcm if has_pcm else None

    return build


def _check_int(value: Any, where: str) -> int:
    # bool is an int in Python, and a peer's `true` is no count of anything.
    if type(value) is not int or not 0 <= value <= INTEGER_MAX:
        raise WireError(f"{where}: not an integer from 0 to 2**53")
    return value


def _check_float(value: Any, where: str) -> float:
    if type(value) not in (float, int) or not math.isfinite(value) or value < 0:
        raise WireError(f"{where}: not a finite number")
    return float(value)


def _check_bool(value: Any, where: str) -> bool:
    if type(value) is not bool:
        raise WireError(f"{where}: not a boolean")
    return value


def _check_str(value: Any, where: str) -> str:
    if type(value) is not str or len(value) > TEXT_CHARS_MAX:
        raise WireError(f"{where}: not a string, or too long")
    return value


def _check_bytes(value: Any, where: str) -> bytes:
    if type(value) is not bytes:
        raise WireError(f"{where}: not bytes")
    return value


def _check_body(value: Any, where: str) -> dict[str, Any]:
    if type(value) is not dict or not all(type(key) is str for key in value):
        raise WireError(f"{where}: not a map with string keys")
    return value


_SCALARS: dict[Any, _Checker] = {
    int: _check_int,
    float: _check_float,
    bool: _check_bool,
    str: _check_str,
    bytes: _check_bytes,
}


def checker_of(annotation: Any) -> _Checker:
    """The validating function for one annotation used in ``wire.messages``."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass_checker(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return _literal_checker(arguments)
    if origin is dict:
        return _check_body
    if origin is tuple:
        return _tuple_checker(checker_of(arguments[0]))
    if origin in (typing.Union, types.UnionType):
        (inner,) = [a for a in arguments if a is not type(None)]
        return _optional_checker(checker_of(inner))
    raise TypeError(f"no checker for {annotation!r}")


def _literal_checker(allowed: tuple[Any, ...]) -> _Checker:
    def check(value: Any, where: str) -> Any:
        if type(value) is not str or value not in allowed:
            raise WireError(f"{where}: not one of {', '.join(allowed)}")
        return value

    return check


def _tuple_checker(check_item: _Checker) -> _Checker:
    def check(value: Any, where: str) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > ITEMS_MAX:
            raise WireError(f"{where}: not a list, or too long")
        return tuple([check_item(item, where) for item in value])

    return check


def _optional_checker(check_inner: _Checker) -> _Checker:
    def check(value: Any, where: str) -> Any:
        return None if value is None else check_inner(value, where)

    return check


def _dataclass_checker(cls: type) -> _Checker:
    hints = typing.get_type_hints(cls)
    checks = [(f.name, checker_of(hints[f.name])) for f in fields(cls)]
    names = {name for name, _ in checks}
    exclusive = {"text", "error"} <= names

    def check(value: Any, where: str) -> Any:
        if type(value) is not dict or value.keys() != names:
            raise WireError(f"{where}: wrong fields")
        parts = {name: inner(value[name], f"{where}.{name}") for name, inner in checks}
        if exclusive and (parts["text"] is None) == (parts["error"] is None):
            raise WireError(f"{where}: needs either text or error")
        return cls(**parts)

    return check


_WITH_PCM = frozenset(c for c in _KINDS.values() if any(f.name == "pcm" for f in fields(c)))
_checkers: dict[type, _Checker] = {cls: _dataclass_checker(cls) for cls in _KINDS.values()}
_headers: dict[type, _Header] = {cls: _header_of(cls) for cls in _KINDS.values()}
