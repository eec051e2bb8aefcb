"""Processes import at start only what they use: torch takes seconds and much memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

WORKERS_ONLY = ("funasr", "scipy", "torch")
GATEWAYS_ONLY = ("onnx", "onnxruntime")
IF_TRACED = ("opentelemetry.exporter", "opentelemetry.sdk.trace", "requests", "runtime.otlp")
"""redis imports opentelemetry.sdk.metrics by itself if it is installed: 30 ms and 3 MiB."""


@pytest.mark.parametrize("package", ["broker", "gateway", "persistence", "asr_worker"])
def test_no_process_but_the_worker_imports_torch(package: str) -> None:
    """The supervisor ``asr_worker`` does not import it either."""
    program = f"import sys, {package}.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    unwanted = {*WORKERS_ONLY, *IF_TRACED}
    if package != "gateway":
        unwanted |= set(GATEWAYS_ONLY)
    assert not unwanted & set(done.stdout.decode().split())


def test_the_gateway_has_no_metrics_of_persistence() -> None:
    """It reads the database with modules of persistence, which count nothing."""
    program = "import sys, gateway.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert "persistence.metrics" not in done.stdout.decode().split()


def test_opentelemetry_is_imported_only_with_an_endpoint() -> None:
    program = (
        "import sys; from runtime import tracing; "
        "tracing.start('broker', '', 1.0); assert 'runtime.otlp' not in sys.modules; "
        "tracing.start('broker', 'http://127.0.0.1:1', 1.0); assert 'runtime.otlp' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_gateway_computes_on_one_thread() -> None:
    program = "import os, gateway; print(os.environ['OPENBLAS_NUM_THREADS'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"1"
