"""Web origins: the sites whose pages may use the gateway from their visitors' browsers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.web.errors import RefusedError, deny

CODE = "origin_refused"
MESSAGE = (
    "this web origin may not connect: add it to ALLOWED_ORIGINS, or let the reverse proxy pass on "
    "the header Host"
)
READING = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing. A page cannot read their answers without CORS."""
ANY = "*"
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
EXPOSED_HEADERS = ("Content-Disposition", "Retry-After", "X-Session-Id", "X-Warnings")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
PREFLIGHT_S = 600


class WebOrigins:
    """``allowed`` is the setting ``ALLOWED_ORIGINS``."""

    def __init__(self, allowed: str) -> None:
        given = (name.strip() for name in allowed.split(","))
        self.names: Sequence[str] = [_normalised(name) or name for name in given if name]

    def allow(self, headers: Mapping[str, str]) -> bool:
        """Whether the page that sends a request may do so. Browsers send ``Origin``, and a page of
        another site must not use the gateway in its visitor's name. Other clients send none.

        A page is the gateway's own if its browser says so, or if it was loaded from the host that
        the client asked for. No page can set any of these headers.
        """
        origin = headers.get("origin")
        if origin is None or headers.get("sec-fetch-site") == "same-origin":
            return True
        name = _normalised(origin)
        if ANY in self.names or (name or origin) in self.names:
            return True
        if name is None:
            return False
        scheme, _, _ = name.partition("://")
        hosts = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
        return any(_normalised(f"{scheme}://{host.strip()}") == name for host in hosts)

    def cors(self) -> dict[str, Any]:
        """Return the options of ``CORSMiddleware`` for scripts of these origins.

        Never with ``allow_credentials``: a script has to know a token to send it, so that with
        ``*``, too, no page uses a password that its visitor's browser has stored.
        """
        return {
            "allow_origins": self.names,
            "allow_methods": METHODS,
            "allow_headers": ["*"],
            "expose_headers": EXPOSED_HEADERS,
            "max_age": PREFLIGHT_S,
        }


class OriginCheck:
    """ASGI middleware that refuses WebSockets, and requests that may change something, to pages
    of other origins. A browser sends a form or a file for any page without asking first. It asks
    before it sends a token that the page knows, so that request was allowed already."""

    def __init__(self, app: ASGIApp, origins: WebOrigins) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_sent_unasked(scope) or self._origins.allow(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        await deny(RefusedError(403, CODE, MESSAGE), scope, receive, send)


def _is_sent_unasked(scope: Scope) -> bool:
    """Whether a browser may send this request for any page, and it may change something."""
    if scope["type"] != "http" or scope["method"] in READING:
        return bool(scope["type"] == "websocket")
    authorization = Headers(scope=scope).get("authorization", "")
    # A password may be one that the browser has stored.
    return not authorization or authorization.lower().startswith("basic ")


def _normalised(origin: str) -> str | None:
    """The origin as browsers write it: in lower case, without a default port or a path. None: it
    is no address, such as ``null``."""
    try:
        parts = urlsplit(origin.lower())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host:
        return None
    host = f"[{host}]" if ":" in host else host.rstrip(".")
    default = port is None or port == DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}" if default else f"{parts.scheme}://{host}:{port}"
