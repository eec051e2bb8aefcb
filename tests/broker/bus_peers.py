"""Gateways, workers and persistence as plain sockets, for a real broker process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import zmq

from runtime import endpoints
from tools.lab.harness.ports import free_range
from tools.lab.harness.process import LoggedProcess
from wire import codec, publication, sockets
from wire.messages import Failure, Heartbeat, Message, Ready, WorkerJob, WorkerResult

M = TypeVar("M", bound=Message)
WAIT_S = 60


@dataclass(frozen=True)
class Endpoints:
    frontend: str
    backend: str
    events: str

    @classmethod
    def under(cls, directory: Path) -> Endpoints:
        return cls(*(f"ipc://{directory}/{name}" for name in ("front", "back", "events")))

    @classmethod
    def local(cls, data_dir: Path) -> Endpoints:
        return cls(*(endpoints.local(data_dir, name) for name in ("frontend", "backend", "events")))

    @classmethod
    def on_tcp(cls) -> Endpoints:
        first = free_range(3)
        return cls(*(f"tcp://127.0.0.1:{first + place}" for place in range(3)))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "BROKER_FRONTEND": self.frontend,
            "BROKER_BACKEND": self.backend,
            "BROKER_EVENTS": self.events,
        }


@contextmanager
def running_broker(endpoints: Endpoints, **environment: str) -> Iterator[LoggedProcess]:
    with LoggedProcess("broker", **endpoints.environment, **environment) as process:
        process.event("broker_ready")
        yield process


class Peer:
    """A socket and its context, closed together."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._connect(self._context)

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        raise NotImplementedError

    def frames(self) -> list[bytes]:
        assert self.socket.poll(WAIT_S * 1000), "nothing came"
        return self.socket.recv_multipart()

    def close(self) -> None:
        self.socket.close(linger=0)
        self._context.term()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


class Dealer(Peer):
    def __init__(self, endpoint: str, identity: str) -> None:
        self._endpoint = endpoint
        self.identity = identity
        super().__init__()

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        return sockets.connect_dealer(context, self._endpoint, self.identity)

    def __enter__(self) -> Dealer:
        return self

    def send(self, message: Message) -> None:
        self.socket.send_multipart(codec.encode(message))

    def send_frames(self, frames: Sequence[bytes]) -> None:
        self.socket.send_multipart(frames)

    def receive(self, kind: type[M]) -> M:
        """The next message of this kind. Skips others before it."""
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            message = codec.decode(self.frames())
            if isinstance(message, kind):
                return message
        raise AssertionError(f"no {kind.__name__} came")

    def answer(self, job: WorkerJob, text: str | None, error: Failure | None = None) -> None:
        self.send(
            WorkerResult(
                broker_epoch=job.broker_epoch,
                job_id=job.job_id,
                attempt=job.attempt,
                text=text,
                error=error,
                tokens=(),
                infer_ms=1,
            )
        )

    def fail(self, job: WorkerJob, code: str) -> None:
        self.answer(job, None, Failure(code=code, message="it cannot be recognised"))

    def ready(self, credits: int = 4) -> None:
        self.send(Ready(worker_id=self.identity, credits=credits, model="demo", device="cpu"))

    def beat(self) -> None:
        self.send(Heartbeat(worker_id=self.identity, busy_ms=0))


class Subscriber(Peer):
    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        super().__init__()

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        return sockets.connect_sub(context, self._endpoint, publication.TOPICS)

    def __enter__(self) -> Subscriber:
        return self

    def receive(self) -> tuple[int, publication.Publication]:
        return publication.decode(self.frames())
