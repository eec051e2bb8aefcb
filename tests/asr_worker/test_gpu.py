from __future__ import annotations

import types

import pytest

from asr_worker.gpu import gpu_usage
from wire.messages import Usage


def test_without_an_accelerator_nothing_is_claimed() -> None:
    assert gpu_usage() == {}


def test_the_memory_of_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for torch's functions: there is no accelerator in most test runs."""
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        current_device=lambda: 0,
        mem_get_info=lambda device: (3 << 30, 8 << 30),
        get_device_name=lambda device: "a" * 100,
    )
    monkeypatch.setitem(__import__("sys").modules, "torch", types.SimpleNamespace(cuda=cuda))
    usage = Usage(**gpu_usage())
    assert usage.gpu_memory_bytes == 5 << 30 and usage.gpu_memory_total_bytes == 8 << 30
    assert usage.gpu == "a" * 64
