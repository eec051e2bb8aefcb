"""Entry point of persistence."""

from __future__ import annotations

import uuid

import zmq

from persistence.service import Service
from persistence.settings import PersistenceSettings
from runtime import exit_codes, lifecycle, logging, memory, metrics, settings, tracing
from runtime.process_report import ProcessReport


def main() -> int:
    values = settings.load(PersistenceSettings)
    logging.configure(values.log_level, values.log_format, "persistence")
    settings.log_effective(values)
    stop = lifecycle.StopSignal()
    metrics.serve("persistence", values.metrics_port, values.metrics_host)
    tracing.start("persistence", values.otel_exporter_otlp_endpoint, values.otel_traces_sampler_arg)
    try:
        service = Service(values)
    except zmq.ZMQError as error:
        settings.fail(f"BROKER_EVENTS or BROKER_FRONTEND: {error}")
    report = ProcessReport(values.redis_address(), "persistence", f"persistence-{uuid.uuid4().hex}")
    report.start()
    with service:
        memory.settle()
        service.run(stop)
    report.close()
    tracing.stop()
    return exit_codes.OK


if __name__ == "__main__":
    raise SystemExit(main())
