"""Samples of the system under load, once a second: usage by kind of process, queue, admission."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from asr_client.client import authorization
from tools.lab.harness.http import Answer, ask
from tools.lab.harness.usage import usage

ANSWER_TIMEOUT_S = 2.0
_YARDSTICK = [{"number": n, "text": f"number {n}", "parts": [n] * 8} for n in range(200)]
_YARDSTICK_TRIES = 3


def yardstick_us() -> float:
    """Processor time, µs, of a fixed computation now, the least of some tries: on a shared host a
    slower system may only be a slower machine."""

    def once_s() -> float:
        began_s = time.thread_time()
        json.loads(json.dumps(_YARDSTICK))
        return time.thread_time() - began_s

    return 1e6 * min(once_s() for _ in range(_YARDSTICK_TRIES))


@dataclass(slots=True)
class Sample:
    """One moment. Usage is by kind of process, summed over its instances."""

    at_s: float
    cpu_s: dict[str, float]
    rss_mb: dict[str, float]
    anonymous_mb: dict[str, float]
    """The part of ``rss_mb`` that the process allocated (``Usage.anonymous_mb``)."""
    descriptors: dict[str, float]
    queue: dict[str, Any]
    admission: str = ""
    """``open``, or the code with which a new session is refused; empty: no answer."""
    yardstick_us: float = 0.0


@dataclass
class Samples:
    """Of ``processes``, by default of all processes of this host."""

    http_url: str
    processes: Callable[[], list[psutil.Process]] = lambda: list(psutil.process_iter())
    began_s: float = field(default_factory=time.monotonic)
    taken: list[Sample] = field(default_factory=list)
    token: str | None = field(default=None, repr=False)
    models: tuple[str, ...] = ()
    """Served at the start of the run."""

    def take(self) -> Sample:
        """Take a sample; this blocks for some tens of milliseconds."""
        sums: dict[str, defaultdict[str, float]] = {
            name: defaultdict(float) for name in ("cpu_s", "rss_mb", "anonymous_mb", "descriptors")
        }
        for process in usage(self.processes()):
            for name, by_kind in sums.items():
                by_kind[process.kind] += getattr(process, name)
        queue = self._get("/api/v1/asr/queue/status")
        admission = self._get("/api/v1/admission")
        sample = Sample(
            time.monotonic() - self.began_s,
            **{name: dict(by_kind) for name, by_kind in sums.items()},
            queue=queue.body if queue.status == HTTPStatus.OK else {},
            admission=_code(admission),
            yardstick_us=yardstick_us(),
        )
        self.taken.append(sample)
        return sample

    def _get(self, path: str) -> Answer:
        headers = authorization(self.token)
        return ask(self.http_url + path, headers=headers, timeout_s=ANSWER_TIMEOUT_S)

    def cpu_s_used(self) -> dict[str, float]:
        """Processor time by kind between the first and the last sample. Little of a process that
        ends between two samples is missed."""
        used_s: defaultdict[str, float] = defaultdict(float)
        for before, now in pairwise(self.taken):
            for kind, at_s in now.cpu_s.items():
                used_s[kind] += max(0.0, at_s - before.cpu_s.get(kind, 0.0))
        return dict(used_s)

    def cores_used(self) -> dict[str, float]:
        """Mean processor use by kind, in cores, between the first and the last sample."""
        if len(self.taken) < 2:
            return {}
        span_s = self.taken[-1].at_s - self.taken[0].at_s
        return {kind: used_s / span_s for kind, used_s in self.cpu_s_used().items()}

    def rss_mb_max(self) -> dict[str, float]:
        kinds = {kind for sample in self.taken for kind in sample.rss_mb}
        return {kind: max(s.rss_mb.get(kind, 0.0) for s in self.taken) for kind in kinds}

    def closed_s(self) -> tuple[float, float | None] | None:
        """When admission was first seen closed, and from when on it was always seen open (None: it
        was closed in the last sample). None: it was never seen closed."""
        closed = [s.at_s for s in self.taken if s.admission not in ("open", "")]
        if not closed:
            return None
        later = [s.at_s for s in self.taken if s.at_s > closed[-1] and s.admission == "open"]
        return closed[0], min(later, default=None)

    def queue_max(self, name: str) -> float:
        return max((float(s.queue.get(name) or 0) for s in self.taken), default=0.0)

    def write(self, path: Path) -> None:
        """Write the samples as JSON lines."""
        with path.open("w", encoding="utf-8") as file:
            for sample in self.taken:
                file.write(json.dumps(_rounded(asdict(sample))) + "\n")


def _code(answer: Answer) -> str:
    if answer.status == HTTPStatus.OK:
        return "open"
    return str(answer.body.get("code", "")) if isinstance(answer.body, dict) else ""


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return round(value, 2) if isinstance(value, float) else value
