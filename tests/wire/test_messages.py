from __future__ import annotations

from inspect import Parameter, signature

import pytest
from hypothesis import given

from tests.wire import generated
from wire import messages as m


@pytest.mark.parametrize(
    "samples, duration_ms", [(0, 0), (15, 0), (16, 1), (16_000, 1_000), (16_015, 1_000)]
)
def test_pcm_duration_is_rounded_down(samples: int, duration_ms: int) -> None:
    assert m.pcm_duration_ms(bytes(samples * m.BYTES_PER_SAMPLE)) == duration_ms


@pytest.mark.parametrize(
    "cls", [*generated.MESSAGE_TYPES, *generated.RECORD_TYPES], ids=lambda cls: cls.__name__
)
def test_fields_are_named_by_keyword(cls: type) -> None:
    assert all(
        parameter.kind is Parameter.KEYWORD_ONLY for parameter in signature(cls).parameters.values()
    )


@given(generated.of_class(m.Job))
def test_a_result_has_the_place_of_its_job(job: m.Job) -> None:
    result = job.result(text="one", language="en", batch_jobs=2)
    for name in (*m.Place.__struct_fields__, "session_id", "partial", "generation"):
        assert getattr(result, name) == getattr(job, name)
    assert (result.text, result.language, result.batch_jobs) == ("one", "en", 2)


def test_keys_identify_stored_data() -> None:
    record = m.Record(session_id="s", record_seq=3, body={}, generation=1)
    assert record.key == m.StoredKey(session_id="s", kind="record", seq=3, generation=1)


def test_a_message_cannot_be_changed() -> None:
    hello = m.Hello(gateway_id="g")
    assert hello in {m.Hello(gateway_id="g")}
    with pytest.raises(AttributeError):
        hello.gateway_id = "h"  # type: ignore[misc]
