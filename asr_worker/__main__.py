"""``python -m asr_worker``: keep ``ASR_WORKERS`` workers of each model running, or as many as fit.

This process imports neither torch nor FunASR, so it starts at once and stays small. It restarts a
worker that crashed or hangs. It exits with one line on stderr if a setting is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import structlog

from asr_worker.settings import NotPulledError, WorkerSettings, model_source
from asr_worker.worker_count import this_machine, worker_count
from runtime import exit_codes, lifecycle, logging, settings
from runtime.supervisor import Child, run_children

SILENCE_S_MAX = 15.0
"""A worker without a heartbeat for this long is killed and restarted. Workers send heartbeats once
a second, unless they hang (``ASR_HANG_S``) or are stopped. Longer than the broker's lease, so that
a worker that was only paused is not killed as well."""
ONEDNN_SHAPES_MAX = 64
"""Compiled kernels that oneDNN caches, one for each shape of a batch. Its default of 1,024 takes
35 MB more after 600 batches of random lengths, and is not faster."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""Workers make no connections except to the broker; a class of FunASR that would fetch a part of
its model fails at once."""
WORKER = (sys.executable, "-m", "asr_worker.service")


def worker_children(
    values: WorkerSettings,
    workers: int,
    command: Sequence[str] = WORKER,
    silence_s_max: float = SILENCE_S_MAX,
) -> list[Child]:
    """Return one supervised child per worker, ``workers`` of each model. Each has one model.

    A worker that an operator ended by SIGTERM is restarted like a crashed one. Only wrong settings
    end the supervisor.
    """
    return [
        Child(
            list(command),
            environment={
                **OFFLINE,
                "OMP_NUM_THREADS": str(values.asr_threads),
                "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(ONEDNN_SHAPES_MAX),
                "ASR_MODELS": "",
                "ASR_MODEL": model,
                "ASR_ONLINE_MODEL": values.online_models.get(name, ""),
                "ASR_SERVED_NAME": name if values.asr_models else values.asr_served_name,
            },
            final=frozenset({exit_codes.CONFIG}),
            silence_s_max=silence_s_max,
        )
        for name, model in values.served_models.items()
        for _ in range(workers)
    ]


def main() -> int:
    values = settings.load(WorkerSettings)
    logging.configure(values.log_level, values.log_format, "asr_worker-supervisor")
    settings.log_effective(values)
    try:
        # Here and not in each worker, so that the error is printed once.
        for name in values.named_models():
            values.model_directory(model_source(name))
    except NotPulledError as error:
        settings.fail(str(error))
    found = worker_count(values, this_machine())
    structlog.get_logger().info("workers", of_each_model=found.workers, reason=found.reason)
    return run_children(worker_children(values, found.workers), lifecycle.StopSignal())


if __name__ == "__main__":
    raise SystemExit(main())
