"""The hierarchy of exceptions, on which callers depend."""

from __future__ import annotations

from asr_client import exceptions as e


def test_all_derive_from_session_error() -> None:
    classes = [found for found in vars(e).values() if isinstance(found, type)]
    assert len(classes) == 5
    assert all(issubclass(found, e.SessionError) for found in classes)


def test_an_unreachable_server_is_a_lost_session() -> None:
    assert issubclass(e.UnreachableError, e.SessionLostError)


def test_a_busy_server_is_a_refusal_with_a_delay() -> None:
    error = e.ServerBusyError(503, "overloaded", 3.0)
    assert isinstance(error, e.RefusedError)
    assert (error.status, error.retry_after_s, str(error)) == (503, 3.0, "overloaded")
