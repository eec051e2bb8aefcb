"""The client of a request: its address, and its token as found by ``gateway.web.auth``."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from gateway.storage.callers import Caller


def client_address(connection: HTTPConnection) -> str:
    """Return the address of the client; empty if it is not known."""
    return connection.client.host if connection.client is not None else ""


def caller_of(connection: HTTPConnection) -> Caller:
    caller: Caller | None = connection.scope.get("state", {}).get("caller")
    return caller if caller is not None else Caller(address=client_address(connection))


def has_token(connection: HTTPConnection) -> bool:
    """Return whether the gateway requires tokens, so that there may be other tenants."""
    return bool(caller_of(connection).token_name)
