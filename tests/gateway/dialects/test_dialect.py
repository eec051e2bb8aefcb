from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from gateway.dialects.dialect import Handshake, MessageError
from gateway.dialects.registry import DIALECTS
from gateway.session.limits import FileTraits, Traits
from wire.messages import Lane


def test_a_message_error_is_an_answer_unless_it_is_fatal() -> None:
    error = MessageError("not JSON")
    assert (str(error), error.code, error.chunk_index, error.fatal) == (
        "not JSON",
        "bad_message",
        None,
        False,
    )
    error = MessageError("odd length", "bad_audio", 7, fatal=True)
    assert (error.code, error.chunk_index, error.fatal) == ("bad_audio", 7, True)


ALL_TRAITS: list[Traits] = [
    *(new_dialect(Handshake()) for new_dialect in DIALECTS.values()),
    FileTraits("openai"),
]


@pytest.mark.parametrize("traits", ALL_TRAITS, ids=lambda traits: traits.name)
def test_every_dialect_states_its_traits(traits: Traits) -> None:
    assert set(get_type_hints(Traits)) == {"name", "resumable", "lane"}
    assert traits.name == traits.name.lower() and traits.name
    assert isinstance(traits.resumable, bool)
    assert traits.lane in get_args(Lane)
