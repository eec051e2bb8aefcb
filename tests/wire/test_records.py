from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.wire import generated
from wire import records
from wire.codec import WireError, decode, encode
from wire.messages import Record


@pytest.mark.parametrize("cls", generated.RECORD_TYPES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_round_trip_in_a_record_message(cls: type, data: st.DataObject) -> None:
    body = data.draw(generated.of_class(cls))
    sent = Record(session_id="s", record_seq=1, body=records.to_body(body))
    received = decode(encode(sent))
    assert isinstance(received, Record)
    assert records.parse_body(received.body) == body


@pytest.mark.parametrize("cls", generated.RECORD_TYPES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_unknown_fields_are_ignored(cls: type, data: st.DataObject) -> None:
    record = data.draw(generated.of_class(cls))
    body = records.to_body(record) | {"added": data.draw(generated.plain_values)}
    assert records.parse_body(body) == record


@pytest.mark.parametrize("cls", generated.RECORD_TYPES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_each_missing_field_takes_its_default_or_is_required(
    cls: type, data: st.DataObject
) -> None:
    record = data.draw(generated.of_class(cls))
    for field in structs.fields(cls):
        body = records.to_body(record)
        del body[field.name]
        if field.required:
            with pytest.raises(WireError, match=f"missing required field `{field.name}`"):
                records.parse_body(body)
        else:
            expected = structs.replace(record, **{field.name: field.default})
            assert records.parse_body(body) == expected


@given(st.dictionaries(st.text(max_size=9), generated.plain_values, max_size=5))
def test_any_map_is_a_record_or_a_wire_error(body: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        records.parse_body(body)


@given(record=generated.record_bodies, value=generated.plain_values, at=st.integers(0, 40))
def test_a_field_of_any_type_is_a_record_or_a_wire_error(
    record: records.RecordBody, value: Any, at: int
) -> None:
    body = records.to_body(record)
    names = list(body)
    body[names[at % len(names)]] = value
    try:
        parsed = records.parse_body(body)
    except WireError as error:
        assert str(error)
    else:
        assert records.parse_body(records.to_body(parsed)) == parsed


def test_a_deletion_has_a_fixed_sequence_number() -> None:
    # Every gateway uses the same number, which is above any that a session reaches.
    body = records.to_body(records.SessionDeleted(requested_at_ms=1))
    sent = Record(session_id="s", record_seq=records.DELETED_RECORD_SEQ, body=body)
    assert decode(encode(sent)) == sent
