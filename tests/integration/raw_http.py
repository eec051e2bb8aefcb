"""Raw HTTP requests that no client library sends."""

from __future__ import annotations

import socket

from tools.lab.harness.stack import Stack


def http(stack: Stack, request: bytes, half: bool) -> bytes:
    """The status line of the answer to raw bytes; empty if the connection was closed."""
    with socket.create_connection(("127.0.0.1", stack.ports["gateway"]), timeout=20) as client:
        try:
            client.sendall(request)
            if half:
                client.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := client.recv(65_536):
                answer += piece
        except ConnectionError:
            return b""
    return answer.partition(b"\r\n")[0]


def status_of(stack: Stack, request: bytes, half: bool = False) -> int:
    line = http(stack, request, half).split()
    return int(line[1]) if line else 0


def upload(stack: Stack, body: bytes, length: int | None = None) -> int:
    head = (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
    )
    short = length is not None and length > len(body)
    return status_of(stack, head % (len(body) if length is None else length) + body, half=short)
