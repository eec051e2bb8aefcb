"""Connections, audio, sessions, REST."""

import os

# Before anything here imports numpy, which would start threads for matrix products; there are none
# here, and the cores are for the other processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
