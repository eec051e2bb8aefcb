"""Connections, audio, sessions, REST."""

import os

# Before anything here imports numpy: on several threads its matrix products take more processor
# time, not less, and the cores are for the other processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
