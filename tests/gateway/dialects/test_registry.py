"""The table of dialects, and their common properties."""

from __future__ import annotations

import pytest

from gateway.dialects.dialect import Handshake
from gateway.dialects.registry import DIALECTS
from gateway.session import events as e


def test_each_connection_gets_a_dialect_of_its_own() -> None:
    for path, new_dialect in DIALECTS.items():
        assert path.startswith("/")
        assert new_dialect(Handshake()) is not new_dialect(Handshake())


def test_names_are_unique_and_one_dialect_is_the_native_one() -> None:
    names = [new_dialect(Handshake()).name for new_dialect in DIALECTS.values()]
    assert len(set(names)) == len(names)
    assert "native" in names


@pytest.mark.parametrize("path", sorted(DIALECTS.keys() - {"/v1/realtime"}))
def test_binary_messages_are_audio(path: str) -> None:
    *_, chunk = DIALECTS[path](Handshake()).parse(b"ab")
    assert isinstance(chunk, e.Chunk) and chunk.data == b"ab"
