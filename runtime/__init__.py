"""Shared by all processes: settings, logging, metrics, traces, signals and supervision."""

import os

# Set before the libraries that read them are imported. A process contacts only hosts that are in
# its settings; by default ONNX Runtime reports to Microsoft, and huggingface-hub to Hugging Face.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")
