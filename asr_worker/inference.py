"""The inference loop: a thread that builds the recogniser and runs one batch at a time.

The thread that owns the socket submits a batch, continues to receive, and is woken when the batch
has ended. PyTorch releases the interpreter lock while it computes, so the two threads overlap.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct

from asr_worker.metrics import AUDIO_SECONDS, BATCH_SECONDS, BATCH_SIZE, RECOGNITIONS
from asr_worker.recognizer.protocol import RECOGNITION_FAILED, Recognition, Recognizer, Utterance
from runtime import tracing
from wire.messages import Failure, WorkerJob, pcm_duration_ms


class FinishedBatch(Struct, frozen=True):
    jobs: Sequence[WorkerJob]
    recognitions: Sequence[Recognition]
    infer_ms: int


class InferenceLoop:
    """One thread, the owner, calls the methods; ``build`` and the recogniser run on another.

    When ``wake_fd`` is readable, the owner calls ``clear_wake`` and checks ``recognizer``,
    ``load_error`` and ``finished``. It submits a batch only if not ``busy``.
    """

    def __init__(self, build: Callable[[], Recognizer]) -> None:
        self._build = build
        self._batches: queue.SimpleQueue[Sequence[WorkerJob] | None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[FinishedBatch] = queue.SimpleQueue()
        self.wake_fd, self._wake_write_fd = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(self._wake_write_fd, False)
        self._busy_since_s: float | None = None
        self.recognizer: Recognizer | None = None
        self.load_error: Exception | None = None
        # A daemon thread: a hung model must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def busy(self) -> bool:
        return self._busy_since_s is not None

    def busy_s(self, now_s: float) -> float:
        """How long the current batch has been running; 0 without one."""
        return 0.0 if self._busy_since_s is None else now_s - self._busy_since_s

    def submit(self, jobs: Sequence[WorkerJob], now_s: float) -> None:
        assert not self.busy, "one batch at a time"
        self._busy_since_s = now_s
        self._batches.put(jobs)

    def finished(self) -> FinishedBatch | None:
        """Return the batch that has ended since the last call, if any."""
        try:
            batch = self._finished.get_nowait()
        except queue.Empty:
            return None
        self._busy_since_s = None
        return batch

    def clear_wake(self) -> None:
        """Make ``wake_fd`` unreadable until the next change."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake_fd, 4096)

    def close(self) -> None:
        """Ask the thread to end. Does not wait, because its batch may take long or hang."""
        self._batches.put(None)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # A full pipe is readable, too.
            os.write(self._wake_write_fd, b"\0")

    def _run(self) -> None:
        try:
            self.recognizer = self._build()
        except Exception as error:
            self.load_error = error
            return
        finally:
            self._wake()
        while (jobs := self._batches.get()) is not None:
            started_s = time.monotonic()
            recognitions = _recognize(self.recognizer, jobs)
            elapsed_s = time.monotonic() - started_s
            _count(jobs, recognitions, elapsed_s)
            _log_and_trace(jobs, recognitions, started_s, elapsed_s)
            self._finished.put(FinishedBatch(jobs, recognitions, round(elapsed_s * 1000)))
            self._wake()


def _recognize(recognizer: Recognizer, jobs: Sequence[WorkerJob]) -> Sequence[Recognition]:
    """Recognise ``jobs``. An exception or a wrong number of results fails the batch only."""
    try:
        recognitions = recognizer.recognize([_utterance(job) for job in jobs])
        if len(recognitions) == len(jobs):
            return recognitions
        reason = f"{len(recognitions)} recognitions for {len(jobs)} utterances"
    except Exception as error:
        sessions = sorted({job.session_id for job in jobs})
        structlog.get_logger().exception("recognizer_raised", session_ids=sessions)
        reason = type(error).__name__
    failure = Failure(code=RECOGNITION_FAILED, message=f"the recogniser failed ({reason})")
    return [Recognition(text=None, failure=failure)] * len(jobs)


def _utterance(job: WorkerJob) -> Utterance:
    shared = {name: getattr(job, name) for name in _SHARED_FIELDS}
    return Utterance(stream=(job.session_id, job.seq) if job.session_id else None, **shared)


_SHARED_FIELDS = [name for name in Utterance.__struct_fields__ if name != "stream"]
"""Fields of an utterance that its job has, too."""


def _count(
    jobs: Sequence[WorkerJob], recognitions: Sequence[Recognition], elapsed_s: float
) -> None:
    failed = sum(recognition.failure is not None for recognition in recognitions)
    RECOGNITIONS.labels(outcome="failure").inc(failed)
    RECOGNITIONS.labels(outcome="text").inc(len(recognitions) - failed)
    AUDIO_SECONDS.inc(sum(pcm_duration_ms(job.pcm) for job in jobs) / 1000)
    BATCH_SIZE.observe(len(jobs))
    BATCH_SECONDS.observe(elapsed_s)


def _log_and_trace(
    jobs: Sequence[WorkerJob],
    recognitions: Sequence[Recognition],
    started_s: float,
    elapsed_s: float,
) -> None:
    """Log the failures, with debug lines the other utterances, too; and trace every final."""
    log = structlog.get_logger()
    debugs = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)
    for job, recognition in zip(jobs, recognitions, strict=True):
        code = None if recognition.failure is None else recognition.failure.code
        name = {"session_id": job.session_id, "segment_index": job.seq, "attempt": job.attempt}
        if code is not None:
            log.warning("utterance_failed", **name, code=code)
        elif debugs and not job.partial:
            log.debug("utterance_recognised", **name)
        if tracing.on() and not job.partial:
            tracing.record(
                "inference",
                job.session_id,
                job.seq,
                start_s=started_s,
                end_s=started_s + elapsed_s,
                error=code,
                batch_jobs=len(jobs),
                attempt=job.attempt,
            )
