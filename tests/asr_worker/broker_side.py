"""The broker's end of the bus for tests of workers: a real ROUTER on a free port."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import zmq

from wire import codec
from wire.messages import Heartbeat, Message, Ready, Welcome, WorkerJob, WorkerResult
from wire.sockets import bind_router

PATIENCE_S = 60.0
"""Longest wait for any event on a busy machine; not an expected duration."""
EPOCH = "epoch-1"

M = TypeVar("M")


class BrokerSide:
    """A context manager. ``received`` holds (identity, message) of all messages so far."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = bind_router(self._context, "tcp://127.0.0.1:*")
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.received: list[tuple[bytes, Message]] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> BrokerSide:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.close()
        self._context.term()

    def close(self) -> None:
        """Close the socket, as when a broker is killed."""
        self._socket.close(linger=0)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``python -m *arguments`` as a process connected to this socket."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ASR_", "BROKER_"))}
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env={**inherited, "BROKER_BACKEND": self.endpoint, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._processes.append(process)
        return process

    def next_message(self) -> tuple[bytes, Message]:
        if not self._socket.poll(round(PATIENCE_S * 1000)):
            raise AssertionError(f"nothing received for {PATIENCE_S} s")
        identity, *frames = self._socket.recv_multipart()
        self.received.append((identity, codec.decode(frames)))
        return self.received[-1]

    def receive_all(self) -> None:
        """Receive the messages that have arrived."""
        while self._socket.poll(0):
            self.next_message()

    def wait_for(
        self, kind: type[M], where: Callable[[M], bool] = lambda _: True
    ) -> tuple[bytes, M]:
        """Wait for a message of ``kind`` for which ``where`` holds. Returns (identity, message)."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            identity, message = self.next_message()
            if isinstance(message, kind) and where(message):
                return identity, message
        raise AssertionError(f"no such {kind.__name__} for {PATIENCE_S} s")

    def welcome(self) -> bytes:
        """Wait for a worker's Ready and answer it. Returns the worker's identity."""
        identity, _ = self.wait_for(Ready)
        self.send(identity, Welcome(broker_epoch=EPOCH))
        return identity

    def results(self, job_ids: set[int]) -> dict[int, WorkerResult]:
        """Wait for the results of these jobs."""
        found: dict[int, WorkerResult] = {}
        while found.keys() != job_ids:
            _, result = self.wait_for(WorkerResult)
            assert result.job_id in job_ids, f"unexpected result of job {result.job_id}"
            assert result.job_id not in found, f"second result of job {result.job_id}"
            found[result.job_id] = result
        return found

    def heartbeats_of(self, identity: bytes) -> list[Heartbeat]:
        return [m for sender, m in self.received if sender == identity and isinstance(m, Heartbeat)]

    def send(self, identity: bytes, message: Message) -> None:
        self.send_frames(identity, codec.encode(message))

    def send_frames(self, identity: bytes, frames: list[bytes]) -> None:
        self._socket.send_multipart([identity, *frames], zmq.DONTWAIT)


def worker_job(job_id: int, pcm: bytes, **changes: Any) -> WorkerJob:
    fields: Mapping[str, Any] = {
        "broker_epoch": EPOCH,
        "attempt": 1,
        "partial": False,
        "language": "",
        "hotwords": (),
        **changes,
    }
    return WorkerJob(job_id=job_id, pcm=pcm, **fields)
