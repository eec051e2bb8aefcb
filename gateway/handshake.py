"""uvicorn's WebSocket protocol, with a refused handshake counted as an answered one."""

from __future__ import annotations

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class Handshake(WebSocketsSansIOProtocol):
    """uvicorn 0.54 forgets that a handshake answered by an HTTP response (our 503 and 403) is over,
    and logs each as the error "ASGI callable returned without completing handshake"."""

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        refused = message["type"] == "websocket.http.response.body"
        if refused and not message.get("more_body", False):
            self.handshake_complete = True
