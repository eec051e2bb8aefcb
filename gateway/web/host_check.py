"""Refuses requests whose ``Host`` is not a name of this server, unless requests need tokens.

A web page of another site can point a name of its own at this server's address (DNS rebinding). For
the browser, the server then belongs to that site, so it sends the site as ``Origin`` and lets the
page read and delete sessions. Such a name contains a dot and is in the ``Host`` header; an address
cannot be rebound.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.web.errors import RefusedError, deny

CODE = "host_refused"
NAME_CHARS_SHOWN_MAX = 100


class HostCheck:
    """ASGI middleware that allows requests to an address, to a name without a dot, to this
    machine's own name, and to the ``names``; ``*.example.org`` is every name below that one, and
    ``*`` every name."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        own = socket.gethostname().lower()
        self._app = app
        self._names = {own, f"{own}.local", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        name = name_in(Headers(scope=scope).get("host", ""))
        if self.allows(name):
            await self._app(scope, receive, send)
            return
        message = (
            f"this server is not known as {name[:NAME_CHARS_SHOWN_MAX]!r}; "
            "ALLOWED_HOSTS lists the names under which it may be reached"
        )
        await deny(RefusedError(421, CODE, message), scope, receive, send)

    def allows(self, name: str) -> bool:
        """Whether a request with this name is for this server."""
        if "." not in name or name.endswith(".localhost"):
            return True
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        parents = name.split(".")[1:]
        above = {"*." + ".".join(parents[i:]) for i in range(len(parents))}
        return not self._names.isdisjoint({name, "*", *above})


def name_in(host: str) -> str:
    """The name in a ``Host`` header, in lower case, without port and brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")
