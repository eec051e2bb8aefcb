"""Web origins: the sites whose pages may use the gateway from their visitors' browsers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

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
        """Whether the page that opens a WebSocket may do so. Browsers send ``Origin``, and a page
        of another site must not use the gateway in its visitor's name. Other clients send none.

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
