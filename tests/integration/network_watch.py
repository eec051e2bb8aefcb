"""``unshare --net python -m tests.integration.network_watch COMMAND…``: run a command in a network
namespace where every address is local, and print what it contacts outside this host.

The packets stay on the loopback interface of the namespace: connections are refused and names are
not resolved, but they are seen, whichever library or child process sends them.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
import threading
from typing import Final

ETH_P_ALL: Final = 3
ETHERNET_BYTES: Final = 14
DNS_PORT: Final = 53
SETUP: Final = (
    "ip link set lo up",
    "ip route add local 0.0.0.0/0 dev lo",
    "ip -6 route add local ::/0 dev lo",
)
REPORT: Final = "contacts outside: "


class Watch:
    """Destinations outside this host, and names asked for, as ``ADDRESS:PORT`` and ``NAME``."""

    def __init__(self) -> None:
        self.contacts: set[str] = set()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind(("lo", 0))
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            packet = self._socket.recv(1 << 16)[ETHERNET_BYTES:]
            found = contact(packet)
            if found is not None:
                self.contacts.add(found)


def contact(packet: bytes) -> str | None:
    """Return the address that an IP packet contacts, or the name that it asks for; None if that is
    this host, or if the packet is an answer."""
    if packet[0] >> 4 == 4:
        source, target = ipaddress.ip_address(packet[12:16]), ipaddress.ip_address(packet[16:20])
        kind, payload = packet[9], packet[(packet[0] & 15) * 4 :]
    else:
        source, target = ipaddress.ip_address(packet[8:24]), ipaddress.ip_address(packet[24:40])
        kind, payload = packet[6], packet[40:]
    if kind not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        return None
    port = int.from_bytes(payload[2:4], "big")
    if port == DNS_PORT:
        return name_in(payload[8:]) if kind == socket.IPPROTO_UDP else f"{target}:{port}"
    if target.is_loopback or target.is_multicast:
        return None
    # A local address stands for every other one, also as the source of an answer.
    is_answer = kind == socket.IPPROTO_TCP and payload[13] & 0x14  # RST or ACK
    return None if is_answer and source == target else f"{target}:{port}"


def name_in(query: bytes) -> str:
    """The name that a DNS query asks for."""
    labels, rest = [], query[12:]
    while rest and rest[0]:
        labels.append(rest[1 : 1 + rest[0]].decode("ascii", "replace"))
        rest = rest[1 + rest[0] :]
    return ".".join(labels)


def main(command: list[str]) -> int:
    for line in SETUP:
        subprocess.run(line.split(), check=True)
    watch = Watch()
    code = subprocess.run(command, check=False).returncode
    print(REPORT + json.dumps(sorted(watch.contacts)), flush=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
