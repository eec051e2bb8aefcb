from __future__ import annotations

import dataclasses

import pytest

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
def test_messages_are_frozen_and_named_by_keyword(cls: type) -> None:
    parameters = cls.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert all(field.kw_only for field in dataclasses.fields(cls))
