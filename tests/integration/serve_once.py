"""``asr serve`` until it is ready; then requests of each kind, and its end."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from asr_client import transcribe
from tools.lab.harness.ports import free_port

PATHS = ("/", "/dashboard", "/docs", "/metrics", "/api/v1/health", "/api/v1/history")


def main() -> int:
    port = str(free_port())
    serving = subprocess.Popen(
        [sys.executable, "-m", "tools.cli.serve"],
        env={**os.environ, "PORT": port},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert serving.stdout is not None
    try:
        if not any(line.startswith("Metrics") for line in serving.stdout):
            return 1
        for path in PATHS:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                answer.read()
        text = transcribe(Path("tools/samples/digits_en.wav"), f"ws://127.0.0.1:{port}/ws/asr")
        print(text)
        return 0
    finally:
        serving.terminate()
        serving.communicate()


if __name__ == "__main__":
    raise SystemExit(main())
