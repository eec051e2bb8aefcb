from __future__ import annotations

import os
import time

from runtime.metrics import VERSION
from runtime.usage import UsageMeter
from wire.messages import Usage


def test_processor_time_is_the_mean_since_the_last_call() -> None:
    meter = UsageMeter()
    until_s = time.process_time() + 0.2
    while time.process_time() < until_s:
        pass
    busy = Usage(**meter.read())
    assert 0.05 < busy.cpu_cores < 8
    time.sleep(0.3)
    assert Usage(**meter.read()).cpu_cores < busy.cpu_cores
    assert (busy.pid, busy.version) == (os.getpid(), VERSION)
    assert busy.memory_bytes is not None and busy.memory_bytes > 1 << 20
