"""Writes the usage of a process to Redis every few seconds, for the dashboard.

A thread of its own with short timeouts does it, so that a stopped or slow Redis never delays the
process. Only the newest state matters, so there is no queue.
"""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from typing import Any

from runtime import redis_clients
from runtime.usage import UsageMeter

PROCESSES_KEY = "asr:processes"
"""A set of the ids of processes, for readers."""
PROCESS_KEY = "asr:process:{}"
"""JSON of the process with this id."""
WRITE_INTERVAL_S = 2.0
TTL_S = 10
"""A process that has written nothing for this long is not shown."""


class ProcessReport:
    """``close`` returns within two call timeouts."""

    def __init__(self, url: str, kind: str, process_id: str) -> None:
        # Made on the thread: that of a cluster connects at once.
        self._client = functools.cache(functools.partial(redis_clients.blocking, url))
        self._kind = kind
        self._process_id = process_id
        self._meter = UsageMeter()
        self._stopped = threading.Event()
        # A daemon thread, so that a blocked Redis client cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="process-report", daemon=True)
        self.details: dict[str, Any] = {}
        """Further fields. Replace it; never change it."""

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(2 * redis_clients.CALL_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopped.wait(WRITE_INTERVAL_S):
            fields = {"kind": self._kind, "usage": self._meter.read(), **self.details}
            try:
                with self._client().pipeline(transaction=False) as pipe:
                    pipe.set(PROCESS_KEY.format(self._process_id), json.dumps(fields), ex=TTL_S)
                    pipe.sadd(PROCESSES_KEY, self._process_id)
                    pipe.execute()
            except redis_clients.ERRORS:
                continue  # The dashboard shows the state of Redis and of the process as unknown.
        with contextlib.suppress(*redis_clients.ERRORS):
            self._client().close()
