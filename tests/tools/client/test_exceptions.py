"""The exceptions, on whose hierarchy callers depend, and what they say of an HTTP error."""

from __future__ import annotations

import pytest

from asr_client import exceptions as e


def test_all_derive_from_session_error() -> None:
    classes = [found for found in vars(e).values() if isinstance(found, type)]
    assert len(classes) == 5
    assert all(issubclass(found, e.SessionError) for found in classes)


def test_an_unreachable_server_is_a_lost_session() -> None:
    assert issubclass(e.UnreachableError, e.SessionLostError)


@pytest.mark.parametrize(
    "header, delay_s", [("3", 3.0), (None, None), ("Fri, 31 Dec 1999 23:59:59 GMT", None)]
)
def test_a_busy_server_is_a_refusal_with_a_delay(header: str | None, delay_s: float | None) -> None:
    error = e.refusal(503, "overloaded", header)
    assert isinstance(error, e.ServerBusyError)
    assert (error.status, error.retry_after_s, str(error)) == (503, delay_s, "overloaded")


def test_any_other_status_is_no_busy_server() -> None:
    error = e.refusal(401, "no token", "3")
    assert type(error) is e.RefusedError
    assert error.retry_after_s is None


@pytest.mark.parametrize(
    "body, message",
    [
        (b'{"code":"unauthorized","message":"show a token"}', "show a token"),
        (b"no worker\n  is ready", "no worker is ready"),
        (b"<html><h1>Bad gateway</h1></html>", "Bad Gateway"),
        (b'{"detail":[]}', '{"detail":[]}'),
        (b"", "Bad Gateway"),
        (b"\xff", "\ufffd"),
        (b'{"error":{"message":"there is no /v1/ws/asr"}}', "there is no /v1/ws/asr"),
    ],
)
def test_the_message_of_a_refusal_is_plain_text(body: bytes, message: str) -> None:
    assert e.message_of(body, "Bad Gateway") == message
