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
from runtime import (
    descriptors,
    exit_codes,
    lifecycle,
    logging,
    memory,
    metrics,
    run_directory,
    settings,
    tracing,
)
from runtime.process_report import ProcessReport


def main() -> int:
    values = settings.load(BrokerSettings)
    logging.configure(values.log_level, values.log_format, "broker")
    settings.log_effective(values)
    descriptors.raise_limit()
    _make_run_directory(values)
    _limit_memory(values.broker_memory_mb_max * 1_000_000)
    stop = lifecycle.StopSignal()
    core = Broker(epoch=uuid.uuid4().hex, limits=values.limits(), system_id=values.system_id)
    counters = QueueCounters(values.redis_address(), core.epoch)
    process_id = f"broker-{core.epoch}"
    # ``counters`` logs whether Redis is available.
    report = ProcessReport(values.redis_address(), "broker", process_id, logs=False)
    with Service(values, core, counters, report) as service:
        metrics.serve("broker", values.metrics_port, values.metrics_host)
        tracing.start("broker", values.otel_exporter_otlp_endpoint, values.otel_traces_sampler_arg)
        counters.start()
        report.start()
        memory.settle()
        try:
            service.run(stop)
        except MemoryError:
            os._exit(exit_codes.FAILURE)
    counters.close()
    report.close()
    run_directory.leave(values.data_dir)
    tracing.stop()
    return exit_codes.OK


def _make_run_directory(values: BrokerSettings) -> None:
    """Create the directory of the endpoints that are not set."""
    inside = f"ipc://{run_directory.run_directory(values.data_dir)}/"
    endpoints = (values.broker_frontend, values.broker_backend, values.broker_events)
    if any(endpoint.startswith(inside) for endpoint in endpoints):
        try:
            run_directory.make(values.data_dir)
        except OSError as error:
            why = error.strerror or error
            settings.fail(f"DATA_DIR {values.data_dir}: {why}", exit_codes.UNAVAILABLE)


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
