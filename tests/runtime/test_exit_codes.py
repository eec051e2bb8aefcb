from __future__ import annotations

from runtime import exit_codes


def test_a_crash_is_never_final() -> None:
    # 1: an exception; 128 + n and -n: a signal. None of them may prevent a restart.
    assert not exit_codes.FINAL & {1, 2, *range(128, 256), *range(-64, 0)}
    assert len({exit_codes.OK, exit_codes.UNAVAILABLE, exit_codes.CONFIG}) == 3
