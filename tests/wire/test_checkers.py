"""The codec's tests try every message; these are of what is generated."""

from __future__ import annotations

import pytest

from wire.checkers import WireError, checker_of, source_of
from wire.messages import Failure, StoredKey


def test_a_checker_is_one_function_that_can_be_read() -> None:
    assert source_of(StoredKey, "Key").splitlines() == [
        "def check(value):",
        "    if type(value) is not dict or len(value) != 4:",
        "        raise WireError('Key: wrong fields')",
        "    try:",
        "        value_session_id = value['session_id']",
        "        value_kind = value['kind']",
        "        value_seq = value['seq']",
        "        value_generation = value['generation']",
        "    except KeyError:",
        "        raise WireError('Key: wrong fields') from None",
        "    if type(value_session_id) is not str or len(value_session_id) > 256:",
        "        raise WireError('Key.session_id: not a name, or too long')",
        "    if type(value_kind) is not str or value_kind not in allowed_3:",
        "        raise WireError('Key.kind: not one of result, record')",
        "    if type(value_seq) is not int or not 0 <= value_seq <= 9007199254740991:",
        "        raise WireError('Key.seq: not an integer from 0 to 2**53')",
        "    if type(value_generation) is not int "
        "or not 0 <= value_generation <= 9007199254740991:",
        "        raise WireError('Key.generation: not an integer from 0 to 2**53')",
        "    value = cls_4(session_id=value_session_id, kind=value_kind, seq=value_seq, "
        "generation=value_generation)",
        "    return value",
    ]


def test_nothing_is_left_over_and_nothing_missing() -> None:
    check = checker_of(Failure, "F")
    assert check({"code": "c", "message": "m"}) == Failure(code="c", message="m")
    for wrong in ({"code": "c"}, {"code": "c", "other": "m"}, {"code": "c", "message": "m", "": 1}):
        with pytest.raises(WireError, match="F: wrong fields"):
            check(wrong)


def test_an_optional_value_is_checked_when_it_is_there() -> None:
    check = checker_of(Failure | None, "F")
    assert check(None) is None
    with pytest.raises(WireError, match=r"F\.code"):
        check({"code": 1, "message": "m"})


def test_an_annotation_without_a_checker_is_our_own_mistake() -> None:
    with pytest.raises(TypeError, match="no checker"):
        checker_of(complex, "Message")
