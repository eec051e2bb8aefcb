"""Malformed messages, each generated from the seed and its number alone."""

from __future__ import annotations

import base64
import json
import random
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgpack
from msgspec import inspect

from wire import codec
from wire import messages as m
from wire.validation import RATIO_MAX

BUS_KINDS: Final = tuple(typing.get_args(m.Message))
FRONT_KINDS: Final = (m.Hello, m.Job, m.Cancel, m.Record, m.Claim, m.Stored)
SESSION_PREFIX: Final = "fuzz-"
STRANGE: Final[tuple[Any, ...]] = (
    *(None, True, -1, 0, 1 << 53, (1 << 64) - 1, 1.5, float("nan"), float("inf"), "", b"\xff"),
    *("\0", "x" * 70_000, [], {}, [[]] * 50, {"a": {"b": {}}}, "'; DROP TABLE asr_sessions;--"),
)

Socket = Literal["front", "back"]


@dataclass(frozen=True, slots=True)
class BusMessage:
    socket: Socket
    frames: tuple[bytes, ...]
    expected: str | None
    """Label of the broker's counter that must count it; None: it is valid."""


def random_of(seed: int, number: int) -> random.Random:
    return random.Random(seed * 1_000_003 + number)


# ---------------------------------------------------------------------------------------------- bus


def bus_message(seed: int, number: int) -> BusMessage:
    rng = random_of(seed, number)
    kind = rng.choice(BUS_KINDS)
    frames = _mutated_frames(rng, kind)
    socket: Socket = "front" if rng.random() < 0.5 else "back"
    expected = _expected(socket, frames)
    if expected is None and rng.random() < 0.95:
        # A valid message costs worker and database time: few of them are enough.
        frames = (*frames, b"")
        expected = _expected(socket, frames)
    return BusMessage(socket, frames, expected)


def _expected(socket: Socket, frames: tuple[bytes, ...]) -> str | None:
    try:
        message = codec.decode(frames)
    except codec.WireError:
        return f"{socket}_malformed"
    if socket == "front":
        if isinstance(message, m.Hello):
            return "identity_mismatch"  # A generated identity is never that of the sending socket.
        if isinstance(message, m.Stored):
            return "system_refused" if message.system_id else "stored_for_unknown_gateway"
        # By its exact type: ``Claimed`` extends ``Claim``.
        return None if type(message) in FRONT_KINDS else "front_unexpected"
    if isinstance(message, m.Ready):
        return "bad_ready"
    known = isinstance(message, m.Heartbeat | m.WorkerResult | m.MarkArrived | m.Bye)
    return "unknown_worker" if known else "back_unexpected"


def _mutated_frames(rng: random.Random, kind: type) -> tuple[bytes, ...]:
    header = {name: make(rng) for name, make in _MAKERS[kind]}
    first = codec.tag_of(kind)
    pcm = [rng.randbytes(2 * rng.randint(0, 32))] if kind in _WITH_PCM else []
    damage = rng.randrange(12)
    if damage == 0 and header:
        header[rng.choice(list(header))] = rng.choice(STRANGE)
    elif damage == 1 and header:
        del header[rng.choice(list(header))]
    elif damage == 2:
        header[f"more{rng.randrange(9)}"] = rng.choice(STRANGE)
    packed = msgpack.packb(header, use_bin_type=True)
    if damage == 3:
        packed = _damaged_bytes(rng, packed)
    elif damage == 4:
        packed = rng.choice(_BOMBS)
    elif damage == 5:
        first = rng.randbytes(rng.randint(0, 3))
    frames = [first, packed, *pcm]
    if damage == 6:
        frames += [rng.randbytes(rng.randint(0, 9)) for _ in range(rng.randint(1, 40))]
    return tuple(frames)


def _damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        what = rng.randrange(3)
        place = rng.randrange(len(damaged) + 1)
        if what == 0 and place < len(damaged):
            damaged[place] = rng.randrange(256)
        elif what == 1:
            del damaged[place : place + rng.randint(1, 9)]
        else:
            damaged[place:place] = rng.randbytes(rng.randint(1, 9))
    return bytes(damaged)


def _word(rng: random.Random) -> str:
    return f"{SESSION_PREFIX}{rng.getrandbits(32):08x}"


def _maker(kind: inspect.Type) -> Callable[[random.Random], Any]:
    """A function that returns a random value of one field's type, out of bounds for some floats."""
    match kind:
        case inspect.StrType():
            return _word
        case inspect.IntType():
            return lambda rng: rng.choice((0, 1, rng.randrange(1 << 20)))
        case inspect.FloatType():
            return lambda rng: rng.choice((0.0, 5e-324, rng.random(), RATIO_MAX, 1.7e308))
        case inspect.BoolType():
            return lambda rng: rng.random() < 0.5
        case inspect.BytesType():
            return lambda rng: rng.randbytes(rng.choice((0, 1, 4, 768)))
        case inspect.LiteralType(values=values):
            return lambda rng: rng.choice(values)
        case inspect.DictType():
            return lambda rng: {"type": _word(rng)}
        case inspect.VarTupleType(item_type=item):
            make_item = _maker(item)
            return lambda rng: [make_item(rng) for _ in range(rng.randrange(3))]
        case inspect.StructType(cls=cls):
            makers = _makers_of(cls)
            return lambda rng: {name: make(rng) for name, make in makers}
        case inspect.UnionType(types=types):
            (inner,) = [each for each in types if not isinstance(each, inspect.NoneType)]
            make = _maker(inner)
            return lambda rng: make(rng) if rng.random() < 0.5 else None
    raise TypeError(f"no random value for {kind!r}")


def _makers_of(cls: type) -> list[tuple[str, Callable[[random.Random], Any]]]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return [(field.name, _maker(field.type)) for field in info.fields if field.name != "pcm"]


_MAKERS = {kind: _makers_of(kind) for kind in BUS_KINDS}
_WITH_PCM = frozenset({m.Job, m.WorkerJob})
_BOMBS = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xffx",
    b"\x91" * 50_000,
    b"\x81\xa1a" * 2_000,
    b"\xdc\xff\xff" + b"\xc0" * 65_535,
    b"\xc1",
    b"",
    b"\xc9\xff\xff\xff\xff\x00",
)

# --------------------------------------------------------------------------------------------- edge

Path = Literal["/ws/asr", "/", "/vosk"]
PATHS: Final[tuple[Path, ...]] = ("/ws/asr", "/", "/vosk")


@dataclass(frozen=True, slots=True)
class Talk:
    """One connection's messages. Text frames may be invalid UTF-8, hence bytes."""

    path: Path
    messages: tuple[tuple[bool, bytes], ...]
    """Whether each is a text frame, and its payload."""


def talk(seed: int, number: int, length: int) -> Talk:
    rng = random_of(seed, number)
    path = rng.choice(PATHS)
    session_id = _word(rng)
    return Talk(path, tuple(_client_message(rng, path, session_id) for _ in range(length)))


def _client_message(rng: random.Random, path: Path, session_id: str) -> tuple[bool, bytes]:
    if rng.random() < 0.2:
        return False, _audio(rng)
    fields = dict(rng.choice(_VALID[path])(rng, session_id))
    damage = rng.randrange(10)
    if damage == 0 and fields:
        fields[rng.choice(list(fields))] = rng.choice(_STRANGE_JSON)
    elif damage == 1 and fields:
        del fields[rng.choice(list(fields))]
    text = json.dumps(fields).encode()
    if damage == 2:
        text = _damaged_bytes(rng, text)
    elif damage == 3:
        text = rng.choice(_JSON_BOMBS)
    return True, text


def _audio(rng: random.Random) -> bytes:
    magic = rng.choice((b"", b"", b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0", b"fLaC", b"OggS\0"))
    return magic + rng.randbytes(rng.randint(0, 2_000))


def _start(rng: random.Random, session_id: str) -> dict[str, Any]:
    return {"action": "start", "session_id": session_id, "mode": rng.choice(("auto", "chunk"))}


def _chunk(rng: random.Random, session_id: str) -> dict[str, Any]:
    data = base64.b64encode(_audio(rng)).decode()
    index = rng.randrange(4)
    return {
        "action": "chunk",
        "session_id": session_id,
        "chunk_index": index,
        "audio_data": data,
    }


def _finish(_rng: random.Random, session_id: str) -> dict[str, Any]:
    return {"action": "finish", "session_id": session_id}


def _funasr(rng: random.Random, session_id: str) -> dict[str, Any]:
    return {
        "mode": rng.choice(("offline", "online", "2pass")),
        "wav_name": session_id,
        "wav_format": rng.choice(("pcm", "wav", "mp3")),
        "audio_fs": 16_000,
        "is_speaking": rng.random() < 0.7,
        "hotwords": '{"one": 20}',
    }


def _vosk(rng: random.Random, _session_id: str) -> dict[str, Any]:
    return rng.choice(({"config": {"sample_rate": 16_000, "words": True}}, {"eof": 1}))


_VALID: Final[dict[Path, tuple[Callable[[random.Random, str], dict[str, Any]], ...]]] = {
    "/ws/asr": (_start, _chunk, _chunk, _finish),
    "/": (_funasr,),
    "/vosk": (_vosk,),
}
_STRANGE_JSON = tuple(value for value in STRANGE if not isinstance(value, bytes))
_JSON_BOMBS = (
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"action":"start","session_id":"a","sample_rate":' + b"9" * 5_000 + b"}",
    b'{"action":1e400}',
    b"\xff\xfe",
    b'{"action":"finish","action":"start"}',
    b'{"action":"start","session_id":"a","user_id":"\\ud800"}',
)

# --------------------------------------------------------------------------------------------- REST

_TARGETS = (
    *("/api/v1/session/{}", "/api/v1/history?limit={}", "/api/v1/health", "/v1/models"),
    *("/api/v1/session/{}?format={}", "/static/{}", "/v1/audio/transcriptions", "/{}"),
)
_PIECES = (
    *("1", "-1", "1000000000", "%00", "..%2f..%2fetc%2fpasswd", "'%20OR%201=1--", "%ff", "a" * 300),
    *("1e400", "%F0%9F%8E%A4", "json", "fuzz-1", "NaN"),
)
_BOUNDARY = b"multipart/form-data; boundary=b"


def request(seed: int, number: int) -> bytes:
    """One whole HTTP request."""
    rng = random_of(seed, number)
    target = rng.choice(_TARGETS)
    while "{}" in target:
        target = target.replace("{}", rng.choice(_PIECES), 1)
    method = rng.choice((b"GET", b"GET", b"POST", b"DELETE", b"PUT", b"FUZZ"))
    body = rng.choice((b"", b"{}", b"--b\r\n\r\n", rng.randbytes(200)))
    length = len(body) if rng.random() < 0.9 else rng.choice((-1, len(body) + 1, 1 << 70))
    headers = [
        b"Host: fuzz",
        b"Connection: close",
        b"Content-Length: %d" % length,
        b"Content-Type: " + rng.choice((b"application/json", _BOUNDARY)),
    ]
    if rng.random() < 0.1:
        headers += [b"X-%d: %d" % (n, n) for n in range(rng.choice((10, 5_000)))]
    head = b"%s %s HTTP/1.1\r\n%s\r\n\r\n" % (method, target.encode(), b"\r\n".join(headers))
    return (_damaged_bytes(rng, head) if rng.random() < 0.3 else head) + body
