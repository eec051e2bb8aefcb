"""``python -m asr_worker``: keep ``ASR_WORKERS`` worker processes running.

This process imports neither torch nor FunASR: it starts at once and stays small. It restarts a
worker that crashed or hangs, and ends with one clear line when a setting is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from asr_worker.settings import WorkerSettings
from runtime import exit_codes, lifecycle, logging, settings
from runtime.supervisor import Child, run_children

SILENCE_S_MAX = 15.0
"""A worker beats once a second, unless it hangs (``ASR_HANG_S``) or is stopped. This is longer
than the broker's lease, so a worker that was only paused is not killed on top."""
ONEDNN_SHAPES_MAX = 64
"""Compiled kernels that oneDNN keeps, one for each shape of a batch. Its default of 1,024 costs
120 MB, and is slower."""
WORKER = (sys.executable, "-m", "asr_worker.service")


def worker_children(
    values: WorkerSettings,
    command: Sequence[str] = WORKER,
    silence_s_max: float = SILENCE_S_MAX,
) -> list[Child]:
    """One supervised child per worker.

    A worker that an operator ended by SIGTERM is restarted like a crashed one: only wrong
    settings end the supervisor.
    """
    return [
        Child(
            list(command),
            environment={
                "OMP_NUM_THREADS": str(values.asr_threads),
                "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(ONEDNN_SHAPES_MAX),
            },
            final=frozenset({exit_codes.CONFIG}),
            silence_s_max=silence_s_max,
        )
        for _ in range(values.asr_workers)
    ]


def main() -> int:
    values = settings.load(WorkerSettings)
    logging.configure(values.log_level, values.log_format, "asr_worker-supervisor")
    settings.log_effective(values)
    return run_children(worker_children(values), lifecycle.StopSignal())


if __name__ == "__main__":
    raise SystemExit(main())
