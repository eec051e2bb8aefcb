from __future__ import annotations

import pytest

from gateway.audio.truncation import (
    MISSING_BYTES_MIN,
    MISSING_S_MIN,
    PLACEHOLDER_BYTES_MIN,
    cut_within,
    missing,
)


@pytest.mark.parametrize(
    ("declared_s", "bytes_per_s", "heard_s", "is_cut"),
    [
        (10, 32_000, 4, True),
        (10, 0, 9.5, True),
        (10, 32_000, 10 - MISSING_S_MIN / 2, False),
        (10, 32_000, 12, False),
        (0, 32_000, 12, False),
        (0x7FFF_F000 / 32_000, 32_000, 4, False),
        (PLACEHOLDER_BYTES_MIN / 32_000, 32_000, 4, False),
    ],
)
def test_a_file_is_cut_if_less_came_than_declared(
    declared_s: float, bytes_per_s: float, heard_s: float, is_cut: bool
) -> None:
    assert bool(missing(declared_s, bytes_per_s, heard_s)) is is_cut


def test_the_message_has_both_durations() -> None:
    assert missing(10, 0, 4) == "the file is cut: its header declares 10.0 s of audio, 4.0 s came"


@pytest.mark.parametrize(
    ("missing_bytes", "is_cut"),
    [
        (0, False),
        (MISSING_BYTES_MIN - 1, False),
        (MISSING_BYTES_MIN, True),
        (PLACEHOLDER_BYTES_MIN, False),
    ],
)
def test_a_file_that_ends_within_a_unit_is_cut(missing_bytes: int, is_cut: bool) -> None:
    assert bool(cut_within(missing_bytes)) is is_cut
