"""Entry point of persistence."""

from __future__ import annotations

import zmq

from persistence.service import Service
from persistence.settings import PersistenceSettings
from runtime import exit_codes, lifecycle, logging, memory, metrics, settings, tracing


def main() -> int:
    values = settings.load(PersistenceSettings)
    logging.configure(values.log_level, values.log_format, "persistence")
    settings.log_effective(values)
    stop = lifecycle.StopSignal()
    metrics.serve("persistence", values.metrics_port)
    tracing.start("persistence", *values.traces())
    try:
        service = Service(values)
    except zmq.ZMQError as error:
        settings.fail(f"BROKER_EVENTS or BROKER_FRONTEND: {error}")
    with service:
        memory.settle()
        service.run(stop)
    tracing.stop()
    return exit_codes.OK


if __name__ == "__main__":
    raise SystemExit(main())
