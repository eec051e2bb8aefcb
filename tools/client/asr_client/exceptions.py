"""Exceptions of the client. All derive from ``SessionError``."""

from __future__ import annotations


class SessionError(Exception):
    """The session cannot continue; the message gives the reason."""


class SessionLostError(SessionError):
    """The connection ended before the final result, and the session could not be resumed."""


class UnreachableError(SessionLostError):
    """No connection to the server could be opened."""


class RefusedError(SessionError):
    """The server answered the WebSocket handshake with an HTTP error.

    Attributes:
        status: HTTP status code, such as 401 when the server requires a token.
        retry_after_s: Delay that the server asks for in ``Retry-After``, or ``None``.
    """

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class ServerBusyError(RefusedError):
    """The server has no capacity (HTTP 503); try again after ``retry_after_s`` seconds."""
