"""Round trips of publications, and refusal of all other frames."""

from __future__ import annotations

import pytest

from tests.persistence import sent
from wire import codec, publication
from wire.messages import Hello, PublishedRecord, PublishedResult, Record

RESULT = PublishedResult(broker_epoch="e1", gateway_id="gateway-1", result=sent.result())
RECORD = PublishedRecord(
    broker_epoch="e1",
    gateway_id="gateway-1",
    record=Record(session_id="s", record_seq=4, body={"type": "deleted", "requested_at_ms": 1}),
)


@pytest.mark.parametrize("message", [RESULT, RECORD])
@pytest.mark.parametrize("sequence", [0, 1, 2**64 - 1])
def test_a_publication_survives_a_round_trip(
    message: publication.Publication, sequence: int
) -> None:
    frames = publication.encode(sequence, message)
    assert frames[0] in publication.TOPICS
    assert publication.decode(frames) == (sequence, message)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"result"],
        [b"result", b"\0" * 7, *codec.encode(RESULT)],
        [b"result", b"\0" * 8],
        [b"result", b"\0" * 8, *codec.encode(RECORD)],
        [b"record", b"\0" * 8, *codec.encode(RESULT)],
        [b"result", b"\0" * 8, *codec.encode(Hello(gateway_id="g"))],
        [b"result", b"\0" * 8, *codec.encode(RESULT), b""],
    ],
)
def test_anything_else_is_a_wire_error(frames: list[bytes]) -> None:
    with pytest.raises(codec.WireError):
        publication.decode(frames)
