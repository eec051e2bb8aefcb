"""Entry point of the broker."""

from __future__ import annotations

import resource
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
    memory_bytes_max = values.broker_memory_mb_max * 1_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes_max, memory_bytes_max))
    stop = lifecycle.StopSignal()
    core = Broker(epoch=uuid.uuid4().hex, limits=values.limits())
    counters = QueueCounters(values.redis_address())
    with Service(values, core, counters) as service:
        metrics.serve("broker", values.metrics_port)
        tracing.start("broker", *values.traces())
        counters.start()
        memory.settle()
        service.run(stop)
    counters.close()
    tracing.stop()
    return exit_codes.OK


if __name__ == "__main__":
    raise SystemExit(main())
