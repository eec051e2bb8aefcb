"""``python -m tools.lab.bench.fleet COUNT``: run real workers with a recogniser that waits.

They are threads of one process: sixty-four interpreters would measure the machine's memory instead
of the dispatch. ``ASR_MODEL=fake:50ms`` sets the time that a batch takes.
"""

from __future__ import annotations

import sys
import threading

from asr_worker.recognizer.loading import build
from asr_worker.service import Worker
from asr_worker.settings import WorkerSettings
from runtime import lifecycle, logging

THREADED_MAX = 16
"""Workers in one process: more of them would contend for the interpreter lock."""


def main() -> None:
    logging.configure("error", "console", "fleet")
    values = WorkerSettings()
    stop = lifecycle.StopSignal()
    threads = [
        threading.Thread(target=Worker(values, build, stop).run) for _ in range(int(sys.argv[1]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    lifecycle.die_with_parent()
    main()
