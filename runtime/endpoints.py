"""Endpoints of the bus, ``tcp://HOST:PORT`` or ``ipc://PATH``: of one broker, or a list of those of
all brokers, separated by commas."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from runtime.run_directory import UNIX_SOCKET_PATH_BYTES_MAX, run_directory

PORT_MAX: Final = 65_535
_TCP = re.compile(r"tcp://(?:\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|\*|[\w.-]+):(\d{1,5})", re.ASCII)
_WITHOUT_PORT = re.compile(r"tcp://(?:\[[^\]]*\]|[^\[\]:/]+)/?")
_FORMS = "tcp://HOST:PORT, tcp://[IPV6]:PORT or ipc://PATH"
SEPARATOR: Final = ","


def local(data_dir: Path, name: str) -> str:
    """Return the endpoint ``name`` of the system in ``data_dir``, for its user on this host."""
    return f"ipc://{run_directory(data_dir)}/{name}.sock"


def check(endpoint: str) -> str:
    """Return ``endpoint`` if a socket can be bound or connected to it.

    Raises:
        ValueError: if it has another form. The message is for the operator.
    """
    if SEPARATOR in endpoint or endpoint.count("://") > 1:
        raise ValueError("must be one endpoint, not a list")
    if endpoint.startswith("ipc://") and len(endpoint) > len("ipc://"):
        length = len(os.fsencode(endpoint.removeprefix("ipc://")))
        if length > UNIX_SOCKET_PATH_BYTES_MAX:
            raise ValueError(
                f"the path has {length} bytes; at most {UNIX_SOCKET_PATH_BYTES_MAX} are possible"
            )
        return endpoint
    if _WITHOUT_PORT.fullmatch(endpoint):
        raise ValueError(f"the port is missing; the forms are {_FORMS}")
    found = _TCP.fullmatch(endpoint)
    if found is None:
        raise ValueError(f"must be {_FORMS}")
    if not 1 <= int(found[1]) <= PORT_MAX:
        raise ValueError(f"the port must be between 1 and {PORT_MAX}")
    check_name(urlsplit(endpoint).hostname or "")
    return endpoint


def check_name(host: str) -> None:
    """Raise ``ValueError``, without the name, for one of which Python's resolver raises
    ``UnicodeError`` instead of ``OSError``."""
    try:
        host.encode("idna")  # As the resolver does.
    except UnicodeError:
        raise ValueError(
            "a part of the host's name is empty, longer than 63 letters, or has invalid characters"
        ) from None


def check_reachable(endpoints: str) -> None:
    """Raise ``ValueError`` for ``*``, which a broker can bind, and to which nobody can connect."""
    if any(endpoint.startswith("tcp://*:") for endpoint in split(endpoints)):
        raise ValueError("must name the broker's host: only a broker can use *")


def split(endpoints: str) -> tuple[str, ...]:
    """Return the endpoints of a list, each once, in its order."""
    return tuple(dict.fromkeys(filter(None, map(str.strip, endpoints.split(SEPARATOR)))))


def check_list(endpoints: str) -> str:
    """Return the list in its shortest form. Raises ``ValueError`` as ``check``."""
    return SEPARATOR.join(check(endpoint) for endpoint in split(endpoints))


def is_loopback(host: str) -> bool:
    """Whether ``host`` is reachable from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def leaves_host(endpoint: str) -> bool:
    """Whether messages to ``endpoint`` may reach another host."""
    url = urlsplit(endpoint)
    return url.scheme == "tcp" and not is_loopback(url.hostname or "")
