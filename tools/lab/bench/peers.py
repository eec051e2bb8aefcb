"""Parts of the system for benchmarks: a gateway that only sends jobs, and single processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import zmq

from wire import codec, sockets
from wire import messages as m

GATEWAY_ID = "bench-gateway"
WAIT_MS = 60_000
HELLO_EVERY_S = 0.5


@contextlib.contextmanager
def running(*arguments: str, **environment: str) -> Iterator[psutil.Process]:
    """Run ``python ARGUMENTS`` as a child."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "LOG_LEVEL": "error", **environment},
    ) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def cpu_s(process: psutil.Process) -> float:
    """Processor time of the process itself."""
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def bus_addresses() -> Iterator[dict[str, str]]:
    """Settings of a bus of its own."""
    # The path of a socket must be short, so TMPDIR is not used.
    with tempfile.TemporaryDirectory(prefix="asr-bench-", dir="/tmp") as directory:
        names = {"FRONTEND": "front", "BACKEND": "back", "EVENTS": "events"}
        yield {f"BROKER_{key}": f"ipc://{Path(directory, name)}" for key, name in names.items()}


class Gateway:
    """Sends jobs and receives results, on the thread that created it."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = sockets.connect_dealer(self._context, endpoint, GATEWAY_ID)
        self._hello_due_s = 0.0

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(linger=0)
        self._context.term()

    def send(self, message: m.Message) -> None:
        self.socket.send_multipart(codec.encode(message), zmq.DONTWAIT)

    def greet(self) -> None:
        """Send HELLO if it is due."""
        now_s = time.monotonic()
        if now_s >= self._hello_due_s:
            self._hello_due_s = now_s + HELLO_EVERY_S
            self.send(m.Hello(gateway_id=GATEWAY_ID))

    def receive(self) -> list[m.Message]:
        """Wait for a message; return all that have arrived."""
        self.greet()
        assert self.socket.poll(WAIT_MS), "the broker sends nothing"
        messages = []
        with contextlib.suppress(zmq.Again):
            while True:
                messages.append(codec.decode(self.socket.recv_multipart(zmq.DONTWAIT)))
        return messages

    def results(self) -> list[m.Result]:
        return [message for message in self.receive() if isinstance(message, m.Result)]

    def await_workers(self, count: int) -> None:
        deadline_s = time.monotonic() + WAIT_MS / 1000
        while time.monotonic() < deadline_s:
            for message in self.receive():
                if isinstance(message, m.Load) and message.workers >= count:
                    return
        raise AssertionError(f"fewer than {count} workers are ready")


def job_of(pcm: bytes, number: int, *, sessions: int, lane: m.Lane = "live") -> m.Job:
    """Job ``number``; consecutive jobs belong to ``sessions`` sessions in turn."""
    return m.Job(
        session_id=f"session-{number % sessions}",
        seq=number // sessions,
        partial=False,
        lane=lane,
        start_ms=0,
        end_ms=m.pcm_duration_ms(pcm),
        last_chunk_index=0,
        language="",
        hotwords=(),
        deadline_ms=600_000,
        pcm=pcm,
    )
