"""Processor time and memory of this process, of an accelerator too, and where it runs."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from runtime.metrics import VERSION

_STATM = Path("/proc/self/statm")


class UsageMeter:
    """Call ``read`` at intervals of seconds."""

    def __init__(self) -> None:
        self._began_s = self._read_s = time.monotonic()
        self._cpu_s = time.process_time()

    def read(self) -> dict[str, Any]:
        """Return the fields of ``wire.messages.Usage``. ``cpu_cores`` is the mean since the last
        call."""
        now_s, cpu_s = time.monotonic(), time.process_time()
        elapsed_s = now_s - self._read_s
        cores = (cpu_s - self._cpu_s) / elapsed_s if elapsed_s > 0 else 0.0
        self._read_s, self._cpu_s = now_s, cpu_s
        return {
            "host": socket.gethostname()[:64],
            "pid": os.getpid(),
            "version": VERSION,
            "uptime_s": round(now_s - self._began_s),
            "cpu_cores": round(cores, 3),
            "memory_bytes": _resident_bytes(),
            **_gpu(),
        }


def _resident_bytes() -> int | None:
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None  # Not Linux.
    return pages * os.sysconf("SC_PAGE_SIZE")


def _gpu() -> dict[str, Any]:
    """The fields of an accelerator in use. This neither imports torch nor initialises CUDA."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    device = torch.cuda.current_device()
    free, total = torch.cuda.mem_get_info(device)
    return {
        "gpu": torch.cuda.get_device_name(device)[:64],
        "gpu_memory_bytes": total - free,
        "gpu_memory_total_bytes": total,
    }
