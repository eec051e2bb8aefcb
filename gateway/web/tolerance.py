"""Equivalent requests: a path that ends with a slash, and HEAD, which is GET without a body (RFC
9110, section 9.3.2)."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Tolerance:
    """ASGI middleware. Access control belongs inside it, because it must check the path that is
    routed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and len(scope["path"]) > 1:
            raw_path = scope.get("raw_path") or b"/"
            scope = {
                **scope,
                "path": scope["path"].rstrip("/") or "/",
                "raw_path": raw_path.rstrip(b"/") or b"/",
            }
        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, _without_body(send))
            return
        await self._app(scope, receive, send)


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head
