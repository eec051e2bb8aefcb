"""HTTP requests to a system under test: any header, no proxy, no redirection."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    """0: no answer."""
    headers: dict[str, str]
    """By lower-case name."""
    body: Any
    """The decoded value if the body is JSON, else its text."""


def ask(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Send one request on a connection of its own; return the answer, whatever its status."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=timeout_s)
    path = address._replace(scheme="", netloc="").geturl() or "/"
    try:
        connection.request(method, path, body=data, headers=dict(headers or {}))
        response = connection.getresponse()
        body: Any = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return Answer(0, {}, None)
    finally:
        connection.close()
    with contextlib.suppress(ValueError):
        body = json.loads(body)
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)
