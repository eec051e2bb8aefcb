"""The measured system from outside: processor time and memory of its processes, its queue, and
whether it would admit anybody."""

from __future__ import annotations

import contextlib
import json
import re
import time
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil

from tools.client import authorization

ANSWER_TIMEOUT_S = 2.0
_MODULE = re.compile(r"-m (gateway|broker|asr_worker\.service|persistence)( |$)")
_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)
_YARDSTICK = [{"number": n, "text": f"number {n}", "parts": [n] * 8} for n in range(200)]
_YARDSTICK_TRIES = 3
_SERVERS = {"postgres": "postgres", "valkey-server": "valkey", "redis-server": "valkey"}


def kind_of(command: list[str], name: str) -> str | None:
    """Which of the system's processes a command line is; None for any other."""
    match = _MODULE.search(" ".join(command))
    if match:
        return match[1].partition(".")[0]
    return _SERVERS.get(name)


def anonymous_bytes(process: psutil.Process) -> int:
    """Resident memory that no file stands behind; all of it where the kernel does not tell."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        status = ""
    match = _ANONYMOUS.search(status)
    return int(match[1]) * 1024 if match else int(process.memory_info().rss)


def yardstick_us() -> float:
    """Processor time, µs, that a fixed computation takes here and now, the least of some tries: on
    a shared host a slower system may only be a slower machine."""

    def once_s() -> float:
        began_s = time.thread_time()
        json.loads(json.dumps(_YARDSTICK))
        return time.thread_time() - began_s

    return 1e6 * min(once_s() for _ in range(_YARDSTICK_TRIES))


@dataclass(slots=True)
class Sample:
    """One look. ``cpu_s``, ``rss_mb`` and ``anonymous_mb`` by kind of process; sums over its
    instances."""

    at_s: float
    cpu_s: dict[str, float]
    rss_mb: dict[str, float]
    anonymous_mb: dict[str, float]
    """Of it, what belongs to no file and is not shared: what the process has allocated. Pages of
    code come and go as the kernel takes back what was not used lately."""
    descriptors: dict[str, int]
    queue: dict[str, Any]
    admission: str = ""
    """``open``, or the code that a new session is refused with; empty: no answer."""
    yardstick_us: float = 0.0


@dataclass
class System:
    """Looks at the processes below ``root_pid``, or at all of this host's that are ours."""

    http_url: str
    root_pid: int | None = None
    began_s: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    token: str | None = field(default=None, repr=False)

    def look(self) -> Sample:
        """Take a sample; blocks for some tens of milliseconds."""
        cpu_s: defaultdict[str, float] = defaultdict(float)
        rss_mb: defaultdict[str, float] = defaultdict(float)
        anonymous_mb: defaultdict[str, float] = defaultdict(float)
        descriptors: defaultdict[str, int] = defaultdict(int)
        for process in self._processes():
            try:
                with process.oneshot():
                    kind = kind_of(process.cmdline(), process.name())
                    if kind is None:
                        continue
                    times = process.cpu_times()
                    cpu_s[kind] += times.user + times.system
                    rss_mb[kind] += process.memory_info().rss / 1e6
                    anonymous_mb[kind] += anonymous_bytes(process) / 1e6
                    descriptors[kind] += process.num_fds()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # It has ended while we looked, or is another user's.
        sample = Sample(
            time.monotonic() - self.began_s,
            dict(cpu_s),
            dict(rss_mb),
            dict(anonymous_mb),
            dict(descriptors),
            self._get("/api/v1/asr/queue/status")[1],
            self._admission(),
            yardstick_us(),
        )
        self.samples.append(sample)
        return sample

    def _processes(self) -> list[psutil.Process]:
        if self.root_pid is None:
            return list(psutil.process_iter())
        try:
            return psutil.Process(self.root_pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _admission(self) -> str:
        status, answer = self._get("/api/v1/admission")
        return "open" if status == HTTPStatus.OK else str(answer.get("code", ""))

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and body; 0 and nothing where there is no answer, a gap in the plot."""
        headers = authorization(self.token)
        request = urllib.request.Request(self.http_url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _parsed(error.read())
        except (OSError, ValueError):
            return 0, {}

    def cores_used(self) -> dict[str, float]:
        """Mean processor use by kind, in cores, between the first and the last sample."""
        if len(self.samples) < 2:
            return {}
        first, last = self.samples[0], self.samples[-1]
        span_s = last.at_s - first.at_s
        return {
            kind: max(0.0, used_s - first.cpu_s.get(kind, 0.0)) / span_s
            for kind, used_s in last.cpu_s.items()
        }

    def rss_mb_max(self) -> dict[str, float]:
        kinds = {kind for sample in self.samples for kind in sample.rss_mb}
        return {kind: max(s.rss_mb.get(kind, 0.0) for s in self.samples) for kind in kinds}

    def closed_s(self) -> tuple[float, float | None] | None:
        """When the first look found admission closed, and from when on every look found it open
        (None: it was closed at the last). None: it was never seen closed."""
        closed = [s.at_s for s in self.samples if s.admission not in ("open", "")]
        if not closed:
            return None
        later = [s.at_s for s in self.samples if s.at_s > closed[-1] and s.admission == "open"]
        return closed[0], min(later, default=None)

    def queue_max(self, name: str) -> float:
        return max((float(s.queue.get(name) or 0) for s in self.samples), default=0.0)


def _parsed(body: bytes) -> dict[str, Any]:
    """Of another server, perhaps: a proxy's page is no JSON."""
    with contextlib.suppress(ValueError):
        answer: dict[str, Any] = json.loads(body)
        return answer
    return {}


def write_samples(path: Path, samples: list[Sample]) -> None:
    """Samples as JSON lines, for other tools."""
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            fields = {
                "at_s": round(sample.at_s, 2),
                "cpu_s": sample.cpu_s,
                "rss_mb": {kind: round(mb, 1) for kind, mb in sample.rss_mb.items()},
                "anonymous_mb": {k: round(mb, 1) for k, mb in sample.anonymous_mb.items()},
                "descriptors": sample.descriptors,
                "queue": sample.queue,
                "admission": sample.admission,
                "yardstick_us": round(sample.yardstick_us),
            }
            file.write(json.dumps(fields) + "\n")
