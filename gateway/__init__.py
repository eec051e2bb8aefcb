"""The gateway: connections, audio, sessions, REST."""

import os

# Before numpy is imported, which would start threads for matrix products. The gateway has none, and
# the processors are for other processes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
