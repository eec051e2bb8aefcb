"""Core: the address of a server, as people write it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

WEBSOCKET_PATH: Final = "/ws/asr"
DEFAULT_PORT: Final = 8080
"""Of an address without scheme and port, such as ``localhost``."""
_WEBSOCKET_OF: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_HTTP_OF: Final = {"ws": "http", "wss": "https"}


def websocket_url(address: str) -> str:
    """Return the URL of the native protocol at ``address``.

    ``host``, ``host:port``, ``http://…`` and ``ws://…`` are understood. ``/ws/asr`` is appended to
    an http address, and to any path that is empty or ends with a slash; another path of a WebSocket
    address is kept, since a reverse proxy may have renamed it.

    Raises:
        ValueError: For an address that names no server. The message is one line.
    """
    parts = _parsed(address)
    path = parts.path
    is_complete = path.endswith(WEBSOCKET_PATH) or (
        parts.scheme in _HTTP_OF and path.strip("/") and not path.endswith("/")
    )
    if not is_complete:
        path = path.rstrip("/") + WEBSOCKET_PATH
    query = f"?{parts.query}" if parts.query else ""
    return f"{_WEBSOCKET_OF[parts.scheme]}://{parts.netloc}{path}{query}"


def http_url(address: str) -> str:
    """Return the root of the REST interface of the same server, without a slash at its end.

    Raises:
        ValueError: As ``websocket_url``.
    """
    parts = urlsplit(websocket_url(address))
    root = parts.path.removesuffix(WEBSOCKET_PATH) if WEBSOCKET_PATH in parts.path else ""
    return f"{_HTTP_OF[parts.scheme]}://{parts.netloc}{root}"


def _parsed(address: str) -> SplitResult:
    text = address.strip()
    if "://" not in text:
        host = text.partition("/")[0]
        if not re.search(r"[^:]:\d*$", host):
            text = text.replace(host, f"{host}:{DEFAULT_PORT}", 1)
        text = f"ws://{text}"
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        known = parts.scheme in _WEBSOCKET_OF and parts.port != 0 and host != ""
        known = known and not host.isdecimal()  # A port alone.
        host.encode("idna")  # As a resolver does.
    except ValueError:  # A port that is no number, an open bracket, or a name such as ``a..b``.
        known = False
    if not known or parts.netloc.endswith(":") or re.search(r"\s", text):
        raise ValueError(
            f"not the address of a server: {address!r}; expected HOST:PORT, http://HOST:PORT "
            f"or ws://HOST:PORT{WEBSOCKET_PATH}"
        )
    return parts
