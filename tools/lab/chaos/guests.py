"""Clients beside the verified load: one that asks whether it may come in, one that never reads."""

from __future__ import annotations

import http.client
import re
import socket
import time
import uuid
from typing import Final

from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from runtime.metrics import PORT_OFFSETS
from tools.lab.chaos.system import GATEWAYS_MAX, System

TIMEOUT_S: Final = 3.0
REFUSED_WITHIN_S: Final = 7.0
"""A worker that is silent is missed when its lease ends, after 5 s."""
TRIES_IN_A_ROW: Final = 6
"""Gateways share a port and the kernel chooses: so many, and both were very likely asked."""
DEAF_S_MAX: Final = 45.0
"""``gateway.web.websocket.SEND_TIMEOUT_S``, and the time to fill the sockets' buffers."""
RECEIVE_BUFFER_BYTES: Final = 4_096
BURST: Final = 200
SLOW_CLIENTS: Final = "asr_gateway_slow_clients_total"
UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def ask(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str | None]:
    """Status and ``Retry-After``; status 0 when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers.get("Retry-After")
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


def not_refused(system: System) -> list[str]:
    """What is wrong if new sessions and readiness are not answered 503 with ``Retry-After`` soon,
    and by every gateway."""
    deadline_s = time.monotonic() + REFUSED_WITHIN_S
    for path, headers in (("/ws/asr", UPGRADE), ("/readyz", None)):
        right = 0
        while right < TRIES_IN_A_ROW:
            status, retry_after = ask(system.http_port, path, headers)
            right = right + 1 if status == 503 and retry_after else 0
            if time.monotonic() > deadline_s:
                return [f"{path} answers {status}, Retry-After {retry_after}; 503 was promised"]
            time.sleep(0.05)
    return []


def counted(system: System, name: str) -> float:
    """A counter's sum over all gateways."""
    first = system.metrics_port + PORT_OFFSETS["gateway"]
    total = 0.0
    for port in range(first, first + GATEWAYS_MAX):
        found = re.search(rf"^{name} ([\d.e+]+)$", system.get("/metrics", port)[1], re.MULTILINE)
        total += float(found[1]) if found else 0.0
    return total


def deaf_client_kept(system: System) -> list[str]:
    """Begin a session, ask for answers without end, and read none; returns what is wrong if the
    gateway bears it."""
    before = counted(system, SLOW_CLIENTS)
    deadline_s = time.monotonic() + DEAF_S_MAX
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        client.settimeout(TIMEOUT_S)
        client.connect(("127.0.0.1", system.http_port))
        protocol = open_websocket(client, system.http_port)
        # From the second on each is answered with an error.
        start = f'{{"action":"start","session_id":"{uuid.uuid4()}","user_id":"deaf","mode":"auto"}}'
        unsent = b""
        while time.monotonic() < deadline_s:
            if not unsent:
                for _ in range(BURST):
                    protocol.send_text(start.encode())
                unsent = b"".join(protocol.data_to_send())
                if counted(system, SLOW_CLIENTS) > before:
                    return []
            try:
                unsent = unsent[client.send(unsent) :]
            except TimeoutError:
                continue  # It no longer reads us, either: that is its right.
            except OSError:
                break
    if counted(system, SLOW_CLIENTS) > before:
        return []
    return [f"a client that reads nothing was kept for {DEAF_S_MAX:g} s, or not counted"]


def open_websocket(client: socket.socket, port: int) -> ClientProtocol:
    """The handshake on a connected socket.

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
