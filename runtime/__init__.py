"""Shared by all processes: settings, logging, metrics, traces, signals and supervision."""

import os
import signal

# Set before the libraries that read them are imported. A process contacts only hosts that are in
# its settings; by default ONNX Runtime reports to Microsoft, and huggingface-hub to Hugging Face.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")


def end_by_sigterm() -> None:
    """End by SIGTERM until there is another handler: for a process, of a container, with number 1,
    the kernel discards signals without one. The imports take seconds."""
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
