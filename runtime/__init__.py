"""Shared by all processes: settings, logging, metrics, traces, signals and supervision."""

import os

# Before the libraries that read them are imported: no process contacts a host that no setting
# names. ONNX Runtime reports to Microsoft, huggingface-hub to Hugging Face.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")
