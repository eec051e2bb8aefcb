"""Exceptions of the client. All derive from ``SessionError``."""

from __future__ import annotations

import json
import math
from typing import Final

BUSY_STATUSES: Final = (429, 503)


class SessionError(Exception):
    """The session cannot continue; the message gives the reason."""


class SessionLostError(SessionError):
    """The connection ended before the final result, and the session could not be resumed."""


class UnreachableError(SessionLostError):
    """No connection to the server could be opened."""


class RefusedError(SessionError):
    """The server answered with an HTTP error, to a request or to the WebSocket handshake.

    Attributes:
        status: HTTP status code, such as 401 when the server requires a token.
        retry_after_s: Delay that the server asks for in ``Retry-After``, or ``None``.
    """

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class ServerBusyError(RefusedError):
    """The server has no capacity (HTTP 503), or the token no more for now (429); try again after
    ``retry_after_s`` seconds."""


def refusal(status: int, message: str, retry_after: str | None) -> RefusedError:
    """Return the exception of an HTTP error with that ``Retry-After`` header."""
    if status not in BUSY_STATUSES:
        return RefusedError(status, message)
    try:
        retry_after_s = float(retry_after or "nan")
    except ValueError:  # The header may also be a date (RFC 9110, 10.2.3); this server sends none.
        retry_after_s = math.nan
    return ServerBusyError(status, message, retry_after_s if math.isfinite(retry_after_s) else None)


def message_of(body: bytes | bytearray, reason: str) -> str:
    """Return the message in the ``body`` of an HTTP error, in one line; ``reason`` if there is
    none.

    The server's errors are JSON objects with a ``message``, below /v1 within ``error``; proxies
    send anything.
    """
    text = body.decode("utf-8", "replace").strip()
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict) and isinstance(fields.get("error"), dict):
        fields = fields["error"]
    if isinstance(fields, dict) and isinstance(fields.get("message"), str):
        text = fields["message"]
    elif text.startswith("<"):  # A page of a proxy.
        text = ""
    return " ".join((text or reason).split())
