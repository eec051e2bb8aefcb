"""The headers in which a reverse proxy describes its client: ``X-Forwarded-For``, ``-Proto`` and
``-Host``. They are accepted only from the addresses in ``FORWARDED_ALLOW_IPS``."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

HOST_HEADER = b"x-forwarded-host"
MAPPED = "::ffff:"
"""Before an IPv4 address (RFC 4291, 2.5.5.2)."""


class Forwarded:
    """ASGI middleware around the whole application. uvicorn's takes the client's address and the
    scheme from the first two headers; the third is left for ``gateway.web.origins``."""

    def __init__(self, app: ASGIApp, trusted: str) -> None:
        """``trusted``: addresses and networks, comma-separated; ``*``: all."""
        self._app = app
        self._with_headers = ProxyHeadersMiddleware(app, trusted)  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client, trusted = scope.get("client"), self._with_headers.trusted_hosts
        if client is not None and client[0] not in trusted:
            # A socket for both families, as of HOST=::, has IPv4 clients under such an address.
            client = scope["client"] = (client[0].removeprefix(MAPPED), client[1])
        if client is not None and client[0] in trusted:
            await self._with_headers(scope, receive, send)  # type: ignore[arg-type]
            return
        if "headers" in scope:
            headers = [item for item in scope["headers"] if item[0].lower() != HOST_HEADER]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)
