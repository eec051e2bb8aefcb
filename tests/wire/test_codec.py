from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.wire import generated
from wire import codec, versions
from wire import messages as m
from wire.codec import WireError, decode, encode
from wire.validation import INTEGER_MAX, NAME_CHARS_MAX, RATIO_MAX, TEXT_CHARS_MAX

LOAD = m.Load(
    broker_epoch="e",
    queued_audio_ms=1,
    queued=2,
    in_flight=3,
    failed_total=4,
    workers=5,
    workers_busy=6,
    throughput_rtfx=7.5,
    est_wait_ms=8,
    models=("demo",),
)
JOB = m.WorkerJob(
    broker_epoch="e",
    job_id=1,
    attempt=1,
    partial=False,
    language="zh",
    hotwords=("one", "two"),
    pcm=b"\1\2\3\4",
)
RESULT = m.WorkerResult(
    broker_epoch="e",
    job_id=1,
    attempt=1,
    text="one",
    error=None,
    tokens=(m.Token(text="one", start_ms=0, end_ms=300),),
    infer_ms=5,
)


def repacked(message: m.Message, **changes: Any) -> list[bytes]:
    """``message``'s frames with header fields replaced; ``...`` removes one."""
    frames = encode(message)
    header = {**msgpack.unpackb(frames[1]), **changes}
    header = {name: value for name, value in header.items() if value is not ...}
    return [frames[0], msgpack.packb(header), *frames[2:]]


@pytest.mark.parametrize("cls", generated.MESSAGE_TYPES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_round_trip(cls: type, data: st.DataObject) -> None:
    message = data.draw(generated.of_class(cls))
    frames = encode(message)
    assert decode(frames) == message
    assert frames[0][1] == versions.VERSION_MAX


def test_kinds_differ() -> None:
    kinds = set(codec._KINDS)
    assert len(kinds) == len(generated.MESSAGE_TYPES)
    assert all(len(kind) == 1 for kind in kinds)


def test_pcm_is_a_frame_of_its_own() -> None:
    frames = encode(JOB)
    assert frames[2] is JOB.pcm
    assert "pcm" not in msgpack.unpackb(frames[1])


# -------------------------------------------------------------------------------- other releases

# The outcome depends on the definitions of the fields, and hardly on their values.
of_each_field = settings(max_examples=20)


@pytest.mark.parametrize("cls", generated.MESSAGE_TYPES, ids=lambda cls: cls.__name__)
@of_each_field
@given(data=st.data())
def test_unknown_fields_are_ignored(cls: type, data: st.DataObject) -> None:
    message = data.draw(generated.of_class(cls))
    added = data.draw(generated.plain_values)
    assert decode(repacked(message, field_of_the_next_release=added)) == message


@pytest.mark.parametrize("cls", generated.MESSAGE_TYPES, ids=lambda cls: cls.__name__)
@of_each_field
@given(data=st.data())
def test_each_missing_field_takes_its_default_or_is_required(
    cls: type, data: st.DataObject
) -> None:
    message = data.draw(generated.of_class(cls))
    for field in structs.fields(cls):
        if field.name == "pcm":
            continue
        frames = repacked(message, **{field.name: ...})
        if field.required:
            with pytest.raises(WireError, match=f"missing required field `{field.name}`"):
                decode(frames)
        else:
            assert decode(frames) == structs.replace(message, **{field.name: field.default})


# ---------------------------------------------------------------------------------- hostile frames


def is_refused_or_valid(frames: list[bytes]) -> None:
    try:
        message = decode(frames)
    except WireError as error:
        assert str(error)
    else:
        # Compared as frames: a record's body may hold a NaN, which equals nothing.
        assert encode(decode(encode(message))) == encode(message)


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_any_bytes_are_a_message_or_a_wire_error(frames: list[bytes]) -> None:
    is_refused_or_valid(frames)


@given(
    kind=st.sampled_from(sorted(codec._KINDS)),
    header=generated.plain_values,
    payload=st.lists(st.binary(max_size=9), max_size=2),
)
def test_any_header_is_a_message_or_a_wire_error(
    kind: bytes, header: Any, payload: list[bytes]
) -> None:
    tag = kind + bytes([versions.VERSION_MAX])
    is_refused_or_valid([tag, msgpack.packb(header), *payload])


@given(
    message=generated.messages,
    frame=st.integers(0, 2),
    at=st.integers(0, 10_000),
    piece=st.binary(max_size=6),
    cut=st.integers(0, 6),
)
def test_damaged_frames_are_a_message_or_a_wire_error(
    message: m.Message, frame: int, at: int, piece: bytes, cut: int
) -> None:
    frames = encode(message)
    whole = frames[frame % len(frames)]
    at %= len(whole) + 1
    frames[frame % len(frames)] = whole[:at] + piece + whole[at + cut :]
    is_refused_or_valid(frames)


@given(message=generated.messages, value=generated.plain_values, at=st.integers(0, 40))
def test_a_field_of_any_type_is_a_message_or_a_wire_error(
    message: m.Message, value: Any, at: int
) -> None:
    names = [name for name in message.__struct_fields__ if name != "pcm"]
    is_refused_or_valid(repacked(message, **{names[at % len(names)]: value}))


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"H\1"],
        [b"H", msgpack.packb({"gateway_id": "g"})],
        [b"H\1\1", msgpack.packb({"gateway_id": "g"})],
        [b"H\2", msgpack.packb({"gateway_id": "g"})],
        [b"h\1", msgpack.packb({"gateway_id": "g"})],
        [b"H\1", msgpack.packb({"gateway_id": "g"}) + b"\0"],
        [b"H\1", msgpack.packb({"gateway_id": "g"}), b""],
        [b"H\1", msgpack.packb({"gateway_id": b"g"})],
        [b"H\1", msgpack.packb({"gateway_id": None})],
        [b"H\1", msgpack.packb({b"gateway_id": "g"})],
        [b"H\1", msgpack.packb(["g"])],
        [b"H\1", b"\xc1"],
        [b"H\1", b"\x81\xa1\xff\xa1a"],
        [b"H\1", b"\x91" * 100_000],
        [b"H\1", b"\xdd\xff\xff\xff\xff"],
        [b"H\1", b"\xdf\xff\xff\xff\xff"],
        [b"H\1", b"\xc6\xff\xff\xff\xff"],
        [b"H\1", b"\xd6\xff\0\0\0\0"],
        [b"H\1", bytes(codec.HEADER_BYTES_MAX + 1)],
    ],
    ids=repr,
)
def test_refused(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(frames)


@pytest.mark.parametrize(
    "changes",
    [
        {"queued": -1},
        {"queued": True},
        {"queued": 1.0},
        {"queued": "1"},
        {"queued": INTEGER_MAX + 1},
        {"queued": ...},
        {"throughput_rtfx": float("nan")},
        {"throughput_rtfx": float("inf")},
        {"throughput_rtfx": -0.5},
        {"throughput_rtfx": True},
        {"broker_epoch": "e" * (NAME_CHARS_MAX + 1)},
        {"models": ["m" * (NAME_CHARS_MAX + 1)]},
    ],
    ids=repr,
)
def test_values_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    assert decode(repacked(LOAD)) == LOAD
    with pytest.raises(WireError, match=r"^Load"):
        decode(repacked(LOAD, **changes))


def test_a_ratio_is_bounded_so_that_sums_stay_finite() -> None:
    hello = m.Hello(gateway_id="g", expected_audio_rate=RATIO_MAX)
    assert decode(encode(hello)) == hello
    for ratio in (1.7e308, RATIO_MAX * 1.001, float("nan"), -1.0, "1"):
        with pytest.raises(WireError, match=r"Hello: .*expected_audio_rate"):
            decode(repacked(hello, expected_audio_rate=ratio))


def test_a_long_text_is_refused() -> None:
    long = "x" * (TEXT_CHARS_MAX + 1)
    with pytest.raises(WireError, match=r"WorkerResult: .*text"):
        decode(repacked(RESULT, text=long))


@pytest.mark.parametrize(
    "pcm", [b"\1", bytes(codec.PCM_BYTES_MAX + 2)], ids=["odd", "longer than the limit"]
)
def test_bad_pcm(pcm: bytes) -> None:
    frames = encode(JOB)
    with pytest.raises(WireError, match="bad PCM length"):
        decode([*frames[:2], pcm])


def test_pcm_of_the_maximum_length_is_accepted() -> None:
    longest = structs.replace(JOB, pcm=bytes(codec.PCM_BYTES_MAX))
    assert decode(encode(longest)) == longest


def test_pcm_in_the_header_or_without_a_frame_is_refused() -> None:
    with pytest.raises(WireError, match="PCM in the header"):
        decode(repacked(JOB, pcm=b"\1\2"))
    with pytest.raises(WireError, match="wrong number of frames"):
        decode(encode(JOB)[:2])


@pytest.mark.parametrize(
    "changes",
    [
        {"text": None, "error": None},
        {"error": {"code": "c", "message": "m"}},
        {"text": None, "error": {"code": "c"}},
        {"tokens": [{"text": "one", "start_ms": 0}]},
        {"tokens": [None]},
        {"tokens": {"text": "one"}},
    ],
    ids=repr,
)
def test_a_result_has_either_text_or_error(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="WorkerResult"):
        decode(repacked(RESULT, **changes))


def test_a_list_over_the_limit_is_refused() -> None:
    with pytest.raises(WireError):
        decode(repacked(JOB, hotwords=["x"] * (codec.ITEMS_MAX + 1)))


def test_a_wrong_literal_is_refused() -> None:
    key = m.StoredKey(session_id="s", kind="result", seq=1)
    stored = m.Stored(gateway_id="g", keys=(key,))
    wrong = [{"session_id": "s", "kind": "segment", "seq": 1, "generation": 0}]
    with pytest.raises(WireError, match=r"Stored: .*keys\[.*kind"):
        decode(repacked(stored, keys=wrong))
