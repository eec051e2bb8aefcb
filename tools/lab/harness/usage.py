"""Processes of a system: their kinds, and the processor time, memory and descriptors they use."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_MODULES: Final = {
    "asr_worker": "worker_supervisor",
    "asr_worker.service": "asr_worker",
    "broker": "broker",
    "gateway": "gateway",
    "persistence": "persistence",
    "runtime.supervisor": "supervisor",
    "tools.embedded": "embedded",
}
_SERVERS: Final = {"postgres": "postgres", "redis-server": "valkey", "valkey-server": "valkey"}
_ANONYMOUS: Final = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Usage:
    """One process at one moment."""

    pid: int
    kind: str
    age_s: float
    cpu_s: float
    rss_mb: float
    anonymous_mb: float
    """The part of ``rss_mb`` that is neither file-backed nor shared: the memory that the process
    allocated. The kernel evicts and reloads pages of code, so ``rss_mb`` varies more."""
    descriptors: int


def kind_of(command: list[str], name: str) -> str | None:
    """Kind of the system's process that has this command line and name; None for any other."""
    if command[1:2] == ["-m"]:
        return _MODULES.get("".join(command[2:3]))
    return _SERVERS.get(name)


def family(pid: int) -> list[psutil.Process]:
    """The process and its descendants, parents first; empty if it has ended."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def of_kind(kind: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The living processes of one kind, oldest first."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if kind_of(process.cmdline(), process.name()) == kind:
                found.append((process.create_time(), process))
    return [process for _, process in sorted(found, key=lambda each: each[0])]


def usage(processes: Iterable[psutil.Process], other: str | None = None) -> list[Usage]:
    """Resources that each process uses. A process of no kind counts as ``other``, or not."""
    found = []
    for process in processes:
        # It may end meanwhile, or be another user's.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
            kind = kind_of(process.cmdline(), process.name()) or other
            if kind is None:
                continue
            times = process.cpu_times()
            found.append(
                Usage(
                    process.pid,
                    kind,
                    age_s=time.time() - process.create_time(),
                    cpu_s=times.user + times.system,
                    rss_mb=process.memory_info().rss / 1e6,
                    anonymous_mb=_anonymous_bytes(process) / 1e6,
                    descriptors=process.num_fds(),
                )
            )
    return found


def _anonymous_bytes(process: psutil.Process) -> int:
    """All resident memory where the kernel does not count anonymous memory."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        status = ""
    match = _ANONYMOUS.search(status)
    return int(match[1]) * 1024 if match else int(process.memory_info().rss)
