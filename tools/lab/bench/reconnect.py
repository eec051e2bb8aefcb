"""A crowd of idle connections that are dropped and reconnect at once: every one must be answered,
and the gateway must release all resources."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil

from runtime import memory
from tools.lab.bench.figures import Figure
from tools.lab.harness.stack import supervised_stack
from tools.lab.loadtest.wire import Wire

CONNECTIONS = 2_000
CONNECTIONS_MAX = 1_500
"""The gateway's limit. It is below the size of the crowd, so some connections are refused."""
OPENING_S = 40.0
"""From the first attempt on, with retries as ``Retry-After`` asks."""
ANSWERED_S = 5.0
"""From an attempt to 503, or to the answer to start. A later one counts as no answer."""
REST_S = 20.0
RESUME_WAIT_S = 2.0
"""How long a session waits for its client, and how long its result is then kept."""
FORGOTTEN_S = 2 * RESUME_WAIT_S + memory.SWEEP_EVERY_S + 3.0
"""From the end of the last connection until its session is forgotten."""
ROUNDS = 3
MORE_DESCRIPTORS_MAX = 10.0
MORE_MEMORY_PERCENT_MAX = 10.0


@dataclass
class _Idler:
    """Connects, sends start, and then nothing."""

    url: str
    answer: asyncio.Future[str] = field(default_factory=asyncio.Future)
    retry_after_s: float | None = None
    wire: Wire | None = None

    def connect(self) -> None:
        loop = asyncio.get_running_loop()
        address = urlsplit(self.url)
        assert address.hostname is not None and address.port is not None
        self.wire = wire = Wire(self.url, self)
        made = loop.create_connection(lambda: wire, address.hostname, address.port)
        loop.create_task(made).add_done_callback(self._connected)

    def _connected(self, made: asyncio.Task[tuple[asyncio.Transport, Wire]]) -> None:
        if made.exception() is not None:
            self._answered("no connection")

    def opened(self) -> None:
        assert self.wire is not None
        start = {"action": "start", "session_id": str(uuid.uuid4()), "user_id": "bench"}
        self.wire.send(json.dumps(start))

    def refused(self, status: int, retry_after_s: float | None) -> None:
        self.retry_after_s = retry_after_s
        polite = status == 503 and retry_after_s is not None
        self._answered("refused" if polite else f"HTTP {status}")

    def arrived(self, message: str) -> None:
        answer = json.loads(message)
        self._answered("served" if answer.get("status") == "session_started" else str(answer))

    def lost(self, code: int) -> None:
        self._answered(f"closed {code}")

    def writable(self) -> None:
        """Nothing is waiting to be sent."""

    def _answered(self, answer: str) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


async def _answers(idlers: list[_Idler]) -> Counter[str]:
    """Count the answers to all that have just begun to connect."""
    done, late = await asyncio.wait([idler.answer for idler in idlers], timeout=ANSWERED_S)
    return Counter([future.result() for future in done] + ["no answer"] * len(late))


async def _open(url: str, count: int) -> list[_Idler]:
    """Connections that are admitted; refused ones retry as ``Retry-After`` asks."""
    deadline_s = time.monotonic() + OPENING_S
    inside: list[_Idler] = []
    while len(inside) < count and time.monotonic() < deadline_s:
        tries = [_Idler(url) for _ in range(count - len(inside))]
        for idler in tries:
            idler.connect()
        answers = await _answers(tries)
        assert set(answers) <= {"served", "refused"}, answers
        inside += [idler for idler in tries if idler.answer.result() == "served"]
        after_s = [idler.retry_after_s for idler in tries if idler.retry_after_s is not None]
        await asyncio.sleep(min(after_s, default=0.0))
    return inside


def _drop(idlers: list[_Idler]) -> None:
    for idler in idlers:
        assert idler.wire is not None
        idler.wire.abort()


async def _storm(url: str, idlers: list[_Idler]) -> tuple[list[_Idler], Counter[str], float]:
    """Drop all connections and open new ones at once.

    Returns:
        The new connections, their answers, and the seconds until the last answer.
    """
    _drop(idlers)
    began_s = time.monotonic()
    back = [_Idler(url) for _ in range(CONNECTIONS)]
    for idler in back:
        idler.connect()
    answers = await _answers(back)
    return back, answers, time.monotonic() - began_s


async def _at_rest(is_at_rest: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + REST_S
    while not is_at_rest():
        assert time.monotonic() < deadline_s, f"connections are still open after {REST_S} s"
        await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class _Gateway:
    process: psutil.Process

    def at_rest(self) -> bool:
        inside = [c for c in self.process.net_connections("tcp") if c.status == "ESTABLISHED"]
        return not inside

    def look(self) -> tuple[int, float]:
        """File descriptors, and MB of unique memory."""
        return self.process.num_fds(), self.process.memory_full_info().uss / 1e6


async def _measure(url: str, gateway: _Gateway) -> list[Figure]:
    # The first crowd warms up allocators, and is the baseline.
    opened = await _open(url, CONNECTIONS_MAX)
    answers: Counter[str] = Counter()
    slowest_s = 0.0
    before: tuple[int, float] | None = None
    back = opened
    for _ in range(ROUNDS):
        back, round_answers, round_s = await _storm(url, back)
        answers += round_answers
        slowest_s = max(slowest_s, round_s)
        _drop(back)
        await _at_rest(gateway.at_rest)
        await asyncio.sleep(FORGOTTEN_S)
        before = before or gateway.look()
        back = await _open(url, CONNECTIONS_MAX)
    inside = len(back)
    _drop(back)
    await _at_rest(gateway.at_rest)
    await asyncio.sleep(FORGOTTEN_S)
    assert before is not None
    descriptors, memory_mb = gateway.look()
    answered = answers["served"] + answers["refused"]
    return [
        Figure(
            what=f"of {CONNECTIONS:,} simultaneous connections, answered (with a session, or with"
            " 503 and Retry-After)",
            value=100.0 * answered / answers.total(),
            unit="%",
            reference=f"{ROUNDS} times, each after {inside:,} were dropped: {dict(answers)};"
            f" {CONNECTIONS_MAX:,} are allowed, the last after {slowest_s:.2f} s",
            at_least=100.0,
        ),
        Figure(
            what="growth of file descriptors since the first crowd",
            value=max(0, descriptors - before[0]),
            unit="descriptors",
            reference=f"after the first: {before[0]}",
            at_most=MORE_DESCRIPTORS_MAX,
        ),
        Figure(
            what="growth of the gateway's memory since the first crowd",
            value=max(0.0, 100.0 * (memory_mb / before[1] - 1)),
            unit="%",
            reference=f"after the first: {before[1]:.0f} MB, after the last: {memory_mb:.0f} MB",
            at_most=MORE_MEMORY_PERCENT_MAX,
        ),
    ]


def measure() -> list[Figure]:
    settings = {
        "ASR_MODEL": "demo",
        "LOG_LEVEL": "error",
        "MAX_CONNECTIONS": str(CONNECTIONS_MAX),
        "RESUME_WAIT_S": str(RESUME_WAIT_S),
    }
    with supervised_stack(settings) as stack:
        (gateway,) = stack.living("gateway")
        return asyncio.run(_measure(stack.url(), _Gateway(gateway)))
