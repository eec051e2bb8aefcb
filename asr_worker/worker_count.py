"""How many worker processes this machine has room for, if ``ASR_WORKERS`` is not set.

One for each core (``ASR_THREADS``), or one for a GPU, or one of a bundled or fake model, which is
faster than a gateway.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from asr_worker.model_files.cache import size_bytes
from asr_worker.settings import WORKERS_MAX, WorkerSettings, model_source

RUNTIME_BYTES = 700 << 20
"""Memory of a worker without its model: torch, FunASR, and the buffers of a batch."""
WEIGHTS_TIMES = 2
"""Memory of a model over its files: its weights, and again while they are read."""
MEMORY_SHARE = 0.75
"""Of the available memory, for workers. The rest is for all other processes."""
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
NVIDIA = Path("/proc/driver/nvidia/version")


class Machine(Struct, frozen=True):
    """The resources that this process may use."""

    cores: float
    memory_bytes: int
    gpu: bool


class WorkerCount(Struct, frozen=True):
    workers: int
    """Of each model."""
    reason: str


def this_machine(cgroup: Path = CGROUP, meminfo: Path = MEMINFO, nvidia: Path = NVIDIA) -> Machine:
    """Cores and memory of the machine, or of the container if they are less."""
    cores = float(len(os.sched_getaffinity(0)))
    memory_bytes = 0
    with contextlib.suppress(OSError, ValueError):
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        memory_bytes = int(fields.get("MemAvailable", "0 kB").split()[0]) * 1024
    # Files of cgroup v2. They hold "max" without a limit, and are missing at its root.
    with contextlib.suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        cores = min(cores, int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        memory_bytes = min(memory_bytes, max(0, limit - used))
    return Machine(cores, memory_bytes, nvidia.exists())


def worker_count(values: WorkerSettings, machine: Machine) -> WorkerCount:
    """``ASR_WORKERS``, or what ``machine`` has room for, at least one. The models are pulled."""
    if values.asr_workers is not None:
        return WorkerCount(values.asr_workers, "ASR_WORKERS")
    models = list(values.served_models.values())
    if all(model_source(model).kind in ("demo", "fake") for model in models):
        return WorkerCount(1, "one is enough for this model")
    if values.asr_device not in ("auto", "cpu") or (values.asr_device == "auto" and machine.gpu):
        return WorkerCount(1, "one on a GPU")
    by_cores = int(machine.cores / (values.asr_threads * len(models)))
    files = [*models, *values.online_models.values()]
    further = filter(None, (values.asr_punc_model, values.asr_spk_model))
    weights_bytes = _bytes_of(values, files) + len(models) * _bytes_of(values, further)
    needed_bytes = len(models) * RUNTIME_BYTES + WEIGHTS_TIMES * weights_bytes
    by_memory = int(MEMORY_SHARE * machine.memory_bytes / needed_bytes)
    reason = (
        f"{machine.cores:g} cores have room for {by_cores} of each model, "
        f"{machine.memory_bytes >> 20:,} MiB of memory for {by_memory}"
    )
    return WorkerCount(min(max(1, min(by_cores, by_memory)), WORKERS_MAX), reason)


def _bytes_of(values: WorkerSettings, models: Iterable[str]) -> int:
    return sum(size_bytes(values.model_directory(model_source(name))) for name in models)
