"""Memory of the accelerator that this process uses."""

from __future__ import annotations

import sys
from typing import Any


def gpu_usage() -> dict[str, Any]:
    """Return the ``gpu`` fields of ``wire.messages.Usage``; none without an accelerator.

    It neither imports torch nor initialises CUDA, which it queries only if the model runs on it.
    """
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
