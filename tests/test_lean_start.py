"""What only workers need is not imported by the others: it takes seconds and much memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

WORKERS_ONLY = ("funasr", "scipy", "torch")
GATEWAYS_ONLY = ("onnx", "onnxruntime")


@pytest.mark.parametrize("package", ["broker", "gateway", "persistence", "asr_worker"])
def test_no_process_but_the_worker_imports_torch(package: str) -> None:
    """Nor does ``asr_worker`` itself, which only watches its children."""
    program = f"import sys, {package}.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    unwanted = WORKERS_ONLY if package == "gateway" else (*WORKERS_ONLY, *GATEWAYS_ONLY)
    assert not set(unwanted) & set(done.stdout.decode().split())


def test_the_gateway_computes_on_one_thread() -> None:
    program = "import os, gateway; print(os.environ['OPENBLAS_NUM_THREADS'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"1"
