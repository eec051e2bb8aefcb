"""The gateway: connections, audio, sessions, REST."""

import os

import runtime

runtime.end_by_sigterm()
# Set before numpy is imported, which would start threads for matrix products. The gateway computes
# none, and other processes need the processors.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
