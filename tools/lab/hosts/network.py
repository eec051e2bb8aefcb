"""Network namespaces as hosts, on one bridge. All of it ends with the process that made it.

The process has a network and mounts of its own, in which clients live, too. Each host has a
namespace with one interface, whose other end is on the bridge.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

CLONE_NEWNET: Final = 0x40000000
TUNSETIFF: Final = 0x400454CA
IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
TAP_DEVICE: Final = Path("/dev/net/tun")
FRAME_BYTES_MAX: Final = 1 << 16
WAKE_S: Final = 0.1
"""Interval at which a cable checks whether it was closed."""
SUBNET: Final = "10.77.0"
BRIDGE: Final = "bridge"
NAMESPACES: Final = Path("/run/netns")
OWN_NETWORK: Final = ("unshare", "--net", "--mount")
"""Prefix of a command that gets a network and mounts of its own."""


def why_impossible() -> str:
    """Return the reason why this process cannot make namespaces; empty if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("unshare", "nsenter", "ip", "tc") if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)} (util-linux, iproute2)"
    if not TAP_DEVICE.exists():
        return f"there is no {TAP_DEVICE}"
    tried = subprocess.run(
        [*OWN_NETWORK, "ip", "link", "add", BRIDGE, "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr.strip()


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


class Host:
    """A namespace with one address."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address = f"{SUBNET}.{number}"
        self.port = f"port{number}"
        """The interface of the bridge."""
        self.prefix: Sequence[str] = ("nsenter", f"--net={NAMESPACES / name}", "--")
        """Prefix of a command that runs on this host."""

    def cut(self) -> None:
        """Cut the link in both directions, without notice to either side."""
        _do("ip", "link", "set", self.port, "down")

    def heal(self) -> None:
        _do("ip", "link", "set", self.port, "up")

    def traffic(self) -> tuple[int, int]:
        """Bytes that the host has sent and received so far."""
        command = ("ip", "-json", "-stats", "link", "show", self.port)
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        counted = json.loads(shown)[0]["stats64"]
        # As the bridge counts them.
        return int(counted["rx"]["bytes"]), int(counted["tx"]["bytes"])

    def narrow(self, mbit_per_s: float) -> None:
        """Limit the sending rate of the host; half a second is queued, the rest is lost."""
        limit = ("rate", f"{mbit_per_s}mbit", "burst", "16kb", "latency", "500ms")
        _do(*self.prefix, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", *limit)

    def widen(self) -> None:
        _do(*self.prefix, "tc", "qdisc", "del", "dev", "eth0", "root")


class Network:
    """The bridge and its hosts. This process needs ``OWN_NETWORK``."""

    def __init__(self) -> None:
        _do("mount", "--make-rprivate", "/")
        NAMESPACES.mkdir(parents=True, exist_ok=True)
        _do("mount", "-t", "tmpfs", "tmpfs", str(NAMESPACES))
        _do("ip", "link", "set", "lo", "up")
        _do("ip", "link", "add", BRIDGE, "type", "bridge")
        self._add_address((), BRIDGE, f"{SUBNET}.1")
        self._hosts = 1

    def add(self, name: str) -> Host:
        """A host whose link the kernel makes."""
        host = self._namespace(name)
        peer = ("type", "veth", "peer", "name", "eth0", "netns", name)
        _do("ip", "link", "add", host.port, *peer)
        self._connect(host)
        return host

    def add_with_cable(self, name: str, capture: IO[bytes]) -> tuple[Host, Cable]:
        """A host with a link that delays and loses, and is captured."""
        host = self._namespace(name)
        cable = Cable(host, capture)
        self._connect(host)
        return host, cable

    def _namespace(self, name: str) -> Host:
        self._hosts += 1
        _do("ip", "netns", "add", name)
        return Host(name, self._hosts)

    def _connect(self, host: Host) -> None:
        _do("ip", "link", "set", host.port, "master", BRIDGE, "up")
        _do(*host.prefix, "ip", "link", "set", "lo", "up")
        self._add_address(host.prefix, "eth0", host.address)

    def _add_address(self, prefix: Sequence[str], interface: str, address: str) -> None:
        _do(*prefix, "ip", "address", "add", f"{address}/24", "dev", interface)
        _do(*prefix, "ip", "link", "set", interface, "up")


class Cable:
    """A link in user space, between ``host.port`` and the host's ``eth0``, on its own thread.

    ``delay_s`` (one way) and ``loss`` (a share of the frames) may be changed at any time. Each
    frame is appended to ``capture``, whether or not it is lost.
    """

    def __init__(self, host: Host, capture: IO[bytes]) -> None:
        self.delay_s = 0.0
        self.loss = 0.0
        self.lost = 0
        self._capture = capture
        self._random = random.Random(1)
        self._late: list[tuple[float, int, int, bytes]] = []
        self._frames = 0
        self._closed = False
        self._ends: tuple[int, ...] = ()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(host, ready), daemon=True)
        self._thread.start()
        ready.wait()
        if not self._ends:
            raise RuntimeError(f"no link to {host.name}")

    def close(self) -> None:
        self._closed = True
        self._thread.join()

    def _run(self, host: Host, ready: threading.Event) -> None:
        try:
            outside = _open_tap(host.port)
            # Of this thread only.
            with (NAMESPACES / host.name).open() as namespace:
                failed = ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET)
            if failed:
                raise OSError(f"setns {host.name}")
            self._ends = (outside, _open_tap("eth0"))
        finally:
            ready.set()
        other = dict(zip(self._ends, reversed(self._ends), strict=True))
        poll = select.poll()
        for end in self._ends:
            poll.register(end, select.POLLIN)
        while not self._closed:
            due_s = self._late[0][0] - time.monotonic() if self._late else WAKE_S
            for end, _ in poll.poll(max(0.0, min(due_s, WAKE_S)) * 1_000):
                self._take(end, other[end])
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, end, frame = heapq.heappop(self._late)
                with contextlib.suppress(OSError):  # The interface is down: the link is cut.
                    os.write(end, frame)
        for end in self._ends:
            os.close(end)

    def _take(self, end: int, other: int) -> None:
        try:
            frame = os.read(end, FRAME_BYTES_MAX)
        except OSError:
            return  # The interface is down.
        self._capture.write(frame)
        if self._random.random() < self.loss:
            self.lost += 1
            return
        self._frames += 1
        heapq.heappush(self._late, (time.monotonic() + self.delay_s, self._frames, other, frame))


def _open_tap(name: str) -> int:
    descriptor = os.open(TAP_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor
