"""Writes the usage of a process to Redis every few seconds, for the dashboard."""

from __future__ import annotations

import json
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


class ProcessReport(redis_clients.PeriodicCalls):
    def __init__(self, url: str, kind: str, process_id: str, *, logs: bool = True) -> None:
        super().__init__(url, "process-report", WRITE_INTERVAL_S, logs=logs)
        self._kind = kind
        self._process_id = process_id
        self._meter = UsageMeter()
        self.details: dict[str, Any] = {}
        """Further fields. Replace it; never change it."""

    def call(self) -> bool:
        fields = {"kind": self._kind, "usage": self._meter.read(), **self.details}
        # Without an answer, the dashboard shows the state of Redis and of the process as unknown.
        with self.client().pipeline(transaction=False) as pipe:
            pipe.set(PROCESS_KEY.format(self._process_id), json.dumps(fields), ex=TTL_S)
            pipe.sadd(PROCESSES_KEY, self._process_id)
            pipe.execute()
        return True
