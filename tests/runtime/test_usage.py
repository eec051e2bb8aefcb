from __future__ import annotations

import os
import sys
import time
import types
from unittest.mock import Mock

import pytest

from runtime.metrics import VERSION
from runtime.usage import UsageMeter
from wire.messages import Usage


def test_processor_time_is_the_mean_since_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", Mock(side_effect=[100.0, 102.0, 104.0]))
    monkeypatch.setattr(time, "process_time", Mock(side_effect=[5.0, 6.5, 6.5]))
    meter = UsageMeter()
    busy = Usage(**meter.read())
    idle = Usage(**meter.read())
    assert (busy.cpu_cores, idle.cpu_cores) == (0.75, 0.0)
    assert (busy.pid, busy.version) == (os.getpid(), VERSION)
    assert busy.memory_bytes is not None and busy.memory_bytes > 1 << 20


def test_the_memory_of_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for torch's functions: there is no accelerator in most test runs."""
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        current_device=lambda: 0,
        mem_get_info=lambda device: (3 << 30, 8 << 30),
        get_device_name=lambda device: "a" * 100,
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    usage = Usage(**UsageMeter().read())
    assert usage.gpu_memory_bytes == 5 << 30 and usage.gpu_memory_total_bytes == 8 << 30
    assert usage.gpu == "a" * 64


def test_without_an_accelerator_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = types.SimpleNamespace(is_initialized=lambda: False)
    for torch in (None, types.SimpleNamespace(cuda=cuda)):
        monkeypatch.setitem(sys.modules, "torch", torch)
        usage = Usage(**UsageMeter().read())
        assert usage.gpu == "" and usage.gpu_memory_bytes is None
