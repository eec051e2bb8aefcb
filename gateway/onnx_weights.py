"""Reads the weights out of an ONNX file: as much of protocol buffers as that takes.

Format: https://protobuf.dev/programming-guides/encoding/ and ``onnx.proto`` of ONNX. The file is an
installed package's, not a peer's: what is wrong with it raises ``ValueError`` and ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

_MODEL_GRAPH: Final = 7
_GRAPH_INITIALIZER: Final = 5
_TENSOR_DIMS: Final = 1
_TENSOR_TYPE: Final = 2
_TENSOR_NAME: Final = 8
_TENSOR_RAW_DATA: Final = 9
_FLOAT32: Final = 1

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5

Floats = npt.NDArray[np.float32]


def read_weights(path: Path) -> dict[str, Floats]:
    """The graph's float32 initializers by name.

    Raises:
        ValueError: this is no ONNX file, or holds none.
    """
    try:
        graphs = [value for field, value in _fields(path.read_bytes()) if field == _MODEL_GRAPH]
        weights = dict(_float_tensors(graphs))
    except IndexError as error:
        raise ValueError(f"{path} is cut off") from error
    if not weights:
        raise ValueError(f"{path} holds no weights")
    return weights


def _float_tensors(graphs: list[int | bytes]) -> Iterator[tuple[str, Floats]]:
    for graph in graphs:
        for field, value in _fields(_as_bytes(graph)):
            if field == _GRAPH_INITIALIZER:
                yield from _float_tensor(_as_bytes(value))


def _float_tensor(tensor: bytes) -> Iterator[tuple[str, Floats]]:
    dims: list[int] = []
    name, raw, kind = b"", None, 0
    for field, value in _fields(tensor):
        if field == _TENSOR_DIMS and isinstance(value, int):
            dims.append(value)
        elif field == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif field == _TENSOR_NAME:
            name = _as_bytes(value)
        elif field == _TENSOR_RAW_DATA:
            raw = _as_bytes(value)
    if kind == _FLOAT32 and raw is not None:
        yield name.decode(), np.frombuffer(raw, "<f4").reshape(dims)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their values: integers, or the bytes of strings and messages. Numbers of
    fixed width, which are not needed here, are left out."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield field, value
        elif kind == _BYTES:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError("a field goes on after the end of its message")
            yield field, message[place : place + length]
            place += length
        elif kind in (_FIXED_32, _FIXED_64):
            place += 4 if kind == _FIXED_32 else 8
        else:
            raise ValueError(f"wire type {kind} is not of protocol buffers")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """An integer of seven bits a byte, the lowest first, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where ONNX has a message")
    return value
