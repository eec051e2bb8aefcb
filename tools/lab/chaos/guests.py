"""Clients beside the verified load: one that requests admission, and one that never reads."""

from __future__ import annotations

import socket
import time
import uuid
from typing import Final

from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from tools.lab.chaos.system import System
from tools.lab.harness.http import ask

TIMEOUT_S: Final = 3.0
REFUSED_WITHIN_S: Final = 7.0
"""A stopped worker counts as lost when its lease ends, after 5 s."""
TRIES_IN_A_ROW: Final = 6
"""Gateways share a port and the kernel chooses one: after six tries both were very likely asked."""
DEAF_S_MAX: Final = 45.0
"""``gateway.web.websocket.SEND_TIMEOUT_S``, plus the time to fill the sockets' buffers."""
RECEIVE_BUFFER_BYTES: Final = 4_096
BURST: Final = 200
SLOW_CLIENTS: Final = "asr_gateway_slow_clients_total"
UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def not_refused(system: System) -> list[str]:
    """Problems, unless every gateway soon answers new sessions and readiness probes with 503
    and ``Retry-After``."""
    deadline_s = time.monotonic() + REFUSED_WITHIN_S
    for path, headers in (("/ws/asr", UPGRADE), ("/readyz", None)):
        right = 0
        while right < TRIES_IN_A_ROW:
            answer = ask(system.http_url() + path, headers=headers, timeout_s=TIMEOUT_S)
            retry_after = answer.headers.get("retry-after")
            right = right + 1 if answer.status == 503 and retry_after else 0
            if time.monotonic() > deadline_s:
                return [
                    f"{path} answers {answer.status}, Retry-After {retry_after}; 503 was promised"
                ]
            time.sleep(0.05)
    return []


def deaf_client_kept(system: System) -> list[str]:
    """Start a session, ask for answers endlessly, and read none. The gateway must close the
    connection and count it; return the problems if it does not."""

    def counted() -> float:
        return system.metrics("gateway").total(SLOW_CLIENTS)

    before = counted()
    deadline_s = time.monotonic() + DEAF_S_MAX
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        client.settimeout(TIMEOUT_S)
        client.connect(("127.0.0.1", system.http_port))
        protocol = open_websocket(client, system.http_port)
        # Each one after the first is answered with an error.
        start = f'{{"action":"start","session_id":"{uuid.uuid4()}","user_id":"deaf","mode":"auto"}}'
        unsent = b""
        while time.monotonic() < deadline_s:
            if not unsent:
                for _ in range(BURST):
                    protocol.send_text(start.encode())
                unsent = b"".join(protocol.data_to_send())
                if counted() > before:
                    return []
            try:
                unsent = unsent[client.send(unsent) :]
            except TimeoutError:
                continue  # The gateway may stop reading, too.
            except OSError:
                break
    if counted() > before:
        return []
    return [f"a client that reads nothing was kept for {DEAF_S_MAX:g} s, or not counted"]


def open_websocket(client: socket.socket, port: int) -> ClientProtocol:
    """Do the WebSocket handshake on a connected socket.

    Raises:
        ConnectionError: if it is refused.
    """
    protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/ws/asr"))
    protocol.send_request(protocol.connect())
    client.sendall(b"".join(protocol.data_to_send()))
    while protocol.state is State.CONNECTING:
        data = client.recv(65_536)
        if not data:
            raise ConnectionError("hung up")
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Response) and event.status_code != 101:
                raise ConnectionError(f"HTTP {event.status_code}")
    return protocol
