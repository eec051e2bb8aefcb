"""Frames of the bus: ``[kind and protocol version: 2 bytes][header: msgpack][PCM, jobs only]``.

``decode`` trusts nothing: it checks every field against the message's own annotations and raises
``WireError`` for anything else, never another exception. Field checkers are built once per class
from those annotations, so that a message and its validation cannot drift apart.
"""

from __future__ import annotations

import math
import operator
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
    message = _checkers[cls](header)
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

_Checker = Callable[[Any], Any]
_Plain = Callable[[Any], Any]
_Header = Callable[[Any], tuple[dict[str, Any], bytes | None]]


def _plain_of(annotation: Any) -> _Plain | None:
    """What makes a value of ``annotation`` packable; None if it is so already."""
    if is_dataclass(annotation):
        return _dataclass_plain(typing.cast(type, annotation))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple and (item := _plain_of(arguments[0])) is not None:
        plain_item = item
        return lambda value: [plain_item(item) for item in value]
    if origin in (typing.Union, types.UnionType):
        (argument,) = [a for a in arguments if a is not type(None)]
        if (inner := _plain_of(argument)) is not None:
            plain_inner = inner
            return lambda value: None if value is None else plain_inner(value)
    return None


def _dataclass_plain(cls: type, without: str = "") -> Callable[[Any], dict[str, Any]]:
    hints = typing.get_type_hints(cls)
    names = tuple(f.name for f in fields(cls) if f.name != without)
    # attrgetter gives one value alone, and several as a tuple.
    values_of = operator.attrgetter(*names)
    convert = [(n, plain) for n in names if (plain := _plain_of(hints[n])) is not None]

    def build(value: Any) -> dict[str, Any]:
        values = values_of(value)
        header = dict(zip(names, values if len(names) > 1 else (values,), strict=True))
        for name, plain in convert:
            header[name] = plain(header[name])
        return header

    return build


def _header_of(cls: type) -> _Header:
    plain = _dataclass_plain(cls, without="pcm")
    if any(f.name == "pcm" for f in fields(cls)):
        return lambda message: (plain(message), message.pcm)
    return lambda message: (plain(message), None)


def checker_of(annotation: Any, where: str) -> _Checker:
    """The validating function for one annotation used in ``wire.messages``. It returns the value,
    typed, or raises ``WireError`` that begins with ``where``."""
    if annotation in _SCALARS:
        return _SCALARS[annotation](where)
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _dataclass_checker(annotation, where)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return _literal_checker(arguments, where)
    if origin is dict:
        return _body_checker(where)
    if origin is tuple:
        return _tuple_checker(checker_of(arguments[0], where), where)
    if origin in (typing.Union, types.UnionType):
        (inner,) = [a for a in arguments if a is not type(None)]
        return _optional_checker(checker_of(inner, where))
    raise TypeError(f"no checker for {annotation!r}")


def _int_checker(where: str) -> _Checker:
    def check(value: Any) -> int:
        # bool is an int in Python, and a peer's `true` is no count of anything.
        if type(value) is not int or not 0 <= value <= INTEGER_MAX:
            raise WireError(f"{where}: not an integer from 0 to 2**53")
        return value

    return check


def _float_checker(where: str) -> _Checker:
    def check(value: Any) -> float:
        if type(value) not in (float, int) or not math.isfinite(value) or value < 0:
            raise WireError(f"{where}: not a finite number")
        return float(value)

    return check


def _bool_checker(where: str) -> _Checker:
    def check(value: Any) -> bool:
        if type(value) is not bool:
            raise WireError(f"{where}: not a boolean")
        return value

    return check


def _str_checker(where: str) -> _Checker:
    def check(value: Any) -> str:
        if type(value) is not str or len(value) > TEXT_CHARS_MAX:
            raise WireError(f"{where}: not a string, or too long")
        return value

    return check


def _bytes_checker(where: str) -> _Checker:
    def check(value: Any) -> bytes:
        if type(value) is not bytes:
            raise WireError(f"{where}: not bytes")
        return value

    return check


def _body_checker(where: str) -> _Checker:
    def check(value: Any) -> dict[str, Any]:
        if type(value) is not dict or not all(type(key) is str for key in value):
            raise WireError(f"{where}: not a map with string keys")
        return value

    return check


_SCALARS: dict[Any, Callable[[str], _Checker]] = {
    int: _int_checker,
    float: _float_checker,
    bool: _bool_checker,
    str: _str_checker,
    bytes: _bytes_checker,
}


def _literal_checker(allowed: tuple[Any, ...], where: str) -> _Checker:
    def check(value: Any) -> Any:
        if type(value) is not str or value not in allowed:
            raise WireError(f"{where}: not one of {', '.join(allowed)}")
        return value

    return check


def _tuple_checker(check_item: _Checker, where: str) -> _Checker:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > ITEMS_MAX:
            raise WireError(f"{where}: not a list, or too long")
        return tuple([check_item(item) for item in value])

    return check


def _optional_checker(check_inner: _Checker) -> _Checker:
    def check(value: Any) -> Any:
        return None if value is None else check_inner(value)

    return check


def _dataclass_checker(cls: type, where: str) -> _Checker:
    hints = typing.get_type_hints(cls)
    checks = [(f.name, checker_of(hints[f.name], f"{where}.{f.name}")) for f in fields(cls)]
    names = {name for name, _ in checks}
    exclusive = {"text", "error"} <= names

    def check(value: Any) -> Any:
        if type(value) is not dict or value.keys() != names:
            raise WireError(f"{where}: wrong fields")
        if exclusive and (value["text"] is None) == (value["error"] is None):
            raise WireError(f"{where}: needs either text or error")
        return cls(**{name: check_field(value[name]) for name, check_field in checks})

    return check


_WITH_PCM = frozenset(c for c in _KINDS.values() if any(f.name == "pcm" for f in fields(c)))
_checkers: dict[type, _Checker] = {
    cls: _dataclass_checker(cls, cls.__name__) for cls in _KINDS.values()
}
_headers: dict[type, _Header] = {cls: _header_of(cls) for cls in _KINDS.values()}
