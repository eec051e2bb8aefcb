"""Entry point of the broker."""

from __future__ import annotations

import os
import resource
import threading
import uuid

from broker.queue_counters import QueueCounters
from broker.routing import Broker
from broker.service import Service
from broker.settings import BrokerSettings
from runtime import exit_codes, lifecycle, logging, memory, metrics, settings, tracing


def main() -> int:
    values = settings.load(BrokerSettings)
    logging.configure(values.log_level, values.log_format, "broker")
    settings.log_effective(values)
    _limit_memory(values.broker_memory_mb_max * 1_000_000)
    stop = lifecycle.StopSignal()
    core = Broker(epoch=uuid.uuid4().hex, limits=values.limits())
    counters = QueueCounters(values.redis_address())
    with Service(values, core, counters) as service:
        metrics.serve("broker", values.metrics_port)
        tracing.start("broker", *values.traces())
        counters.start()
        memory.settle()
        try:
            service.run(stop)
        except MemoryError:
            os._exit(exit_codes.FAILURE)
    counters.close()
    tracing.stop()
    return exit_codes.OK


def _limit_memory(bytes_max: int) -> None:
    """Limit the memory of the process. At the limit it exits at once, whichever thread allocates:
    an orderly exit may block without memory, and no thread restarts another one."""
    resource.setrlimit(resource.RLIMIT_DATA, (bytes_max, bytes_max))

    def on_thread_failure(failure: threading.ExceptHookArgs) -> None:
        if issubclass(failure.exc_type, MemoryError):
            os._exit(exit_codes.FAILURE)
        threading.__excepthook__(failure)

    threading.excepthook = on_thread_failure


if __name__ == "__main__":
    raise SystemExit(main())
