"""A real worker and supervisor with a recogniser whose faults are triggered by a job's audio.

``python -m tests.asr_worker.faulty_main worker`` or ``… supervisor``.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from asr_worker import service
from asr_worker.__main__ import worker_children
from asr_worker.recognizer.fake import FakeRecognizer
from asr_worker.recognizer.protocol import Recognition, Utterance
from asr_worker.settings import WorkerSettings
from runtime import lifecycle, logging, settings
from runtime.supervisor import run_children

HANG, CRASH, RAISE, WAIT_FOR_FILE = b"HANG", b"DIE!", b"OOPS", b"WAIT"
MODULE = "tests.asr_worker.faulty_main"
SILENCE_S_MAX = 5.0
"""A busy machine may keep a worker still for some seconds, and it must not be killed for that."""
LOADS_AFTER = "LOADS_AFTER"
"""Environment variable: the file for which the model waits."""


class FaultyRecognizer(FakeRecognizer):
    def recognize(self, utterances: Sequence[Utterance]) -> list[Recognition]:
        for utterance in utterances:
            if utterance.pcm.startswith(HANG):
                threading.Event().wait()
            if utterance.pcm.startswith(CRASH):
                os._exit(9)
            if utterance.pcm.startswith(RAISE):
                raise ValueError("asked for")
            if utterance.pcm.startswith(WAIT_FOR_FILE):
                wait_for_file(Path(utterance.language))
        return super().recognize(utterances)


def wait_for_file(path: Path) -> None:
    while not path.exists():
        threading.Event().wait(0.01)


def build(values: WorkerSettings) -> FaultyRecognizer:
    if awaited := os.environ.get(LOADS_AFTER):
        wait_for_file(Path(awaited))
    return FaultyRecognizer(values.asr_model)


def supervise() -> int:
    values = settings.load(WorkerSettings)
    logging.configure(values.log_level, values.log_format, "test-supervisor")
    command = [sys.executable, "-m", MODULE, "worker"]
    children = worker_children(
        values, values.asr_workers or 1, command, silence_s_max=SILENCE_S_MAX
    )
    return run_children(children, lifecycle.StopSignal())


if __name__ == "__main__":
    raise SystemExit(supervise() if sys.argv[1] == "supervisor" else service.main(build))
