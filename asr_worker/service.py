"""One worker process: the broker's jobs in, results out (``python -m asr_worker.service``).

The main thread owns the socket and decides nothing: the job book does. It beats for the inference
loop, to the broker and to the supervisor, only while that loop waits for work or its present
batch is younger than the hang limit: a stuck loop falls silent, and both act on silence.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable

import structlog
import zmq

from asr_worker.batching import BatchLimits, rest_s
from asr_worker.inference import InferenceLoop
from asr_worker.job_book import JobBook
from asr_worker.metrics import FRAMES_REJECTED, LOAD_SECONDS, MESSAGES_UNSENT, MODEL, QUEUED
from asr_worker.recognizer import ModelLoadError, Recognizer, build, trial_rtfx
from asr_worker.settings import WorkerSettings
from runtime import exit_codes, lifecycle, logging, memory, metrics, settings, tracing
from runtime.liveness import Liveness
from wire import codec, versions
from wire.messages import Heartbeat, Message, Refused
from wire.sockets import connect_dealer, new_identity

HEARTBEAT_S = 1.0
POLL_S = 0.1
"""Longest wait for messages, and so the longest time until SIGTERM is noticed."""
RECEIVE_MAX = 256
"""Messages taken in one turn, so that a flood can't keep results from leaving."""
LOAD_S_MAX = 1_800.0
"""Loading, including a download from a hub, longer than this is a hang."""
FLUSH_S = 0.5
"""Part of the drain time kept for the last messages to leave."""


class Worker:
    """One process's life after its start. Made and run on the main thread."""

    def __init__(
        self,
        values: WorkerSettings,
        build_recognizer: Callable[[WorkerSettings], Recognizer],
        stop: lifecycle.StopSignal,
    ) -> None:
        self._values = values
        self._stop = stop
        self._worker_id = new_identity("worker")
        self._log = structlog.get_logger().bind(worker_id=self._worker_id)
        self._liveness = Liveness.from_environment()
        self._build_recognizer = build_recognizer
        self._trial_rtfx = 0.0
        self._loop = InferenceLoop(self._build)
        self._rest_until_s = 0.0
        self._waited = self._waiting = False
        """Whether jobs had to wait for the present batch to begin; whether some wait now."""

    def run(self) -> int:
        """Load the model, serve until told to stop, drain. Returns the exit code."""
        keys = self._values.bus_keys("worker")
        recognizer = self._load()
        if self._stop.requested:
            return exit_codes.OK
        if recognizer is None:
            return self._exit_code_without_model()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = connect_dealer(context, self._values.broker_backend, self._worker_id, keys)
        book = JobBook(
            worker_id=self._worker_id,
            model=recognizer.model,
            device=recognizer.device,
            limits=BatchLimits(
                jobs_max=self._values.asr_batch_jobs_max,
                audio_ms_max=self._values.asr_batch_audio_ms_max,
            ),
            throughput_rtfx=self._trial_rtfx,
        )
        MODEL.labels(recognizer.model, recognizer.device).set(1)
        memory.settle()
        self._log.info("worker_ready", model=recognizer.model, device=recognizer.device)
        bus = _Bus(socket, self._loop)
        try:
            code = self._serve(bus, book)
            if code == exit_codes.OK:
                code = self._drain(bus, book)
        finally:
            self._loop.close()
            # Bounded, because the broker may be gone: then nobody waits for these messages.
            socket.close(linger=round(FLUSH_S * 1000))
            context.term()
        self._log.info("worker_ended", exit_code=code)
        return code

    def _build(self) -> Recognizer:
        """On the inference thread."""
        recognizer = self._build_recognizer(self._values)
        self._trial_rtfx = trial_rtfx(recognizer, self._values.asr_batch_jobs_max)
        return recognizer

    def _load(self) -> Recognizer | None:
        started_s = time.monotonic()
        while self._loop.alive and not self._stop.requested:
            if self._loop.recognizer is not None:
                LOAD_SECONDS.set(time.monotonic() - started_s)
                break
            if time.monotonic() - started_s < LOAD_S_MAX:
                self._liveness.beat()
            self._stop.wait(POLL_S)
        return self._loop.recognizer

    def _exit_code_without_model(self) -> int:
        error = self._loop.load_error
        if isinstance(error, ModelLoadError):
            settings.fail(str(error), exit_codes.CONFIG if error.final else exit_codes.FAILURE)
        self._log.error("model_load_failed", exc_info=error)
        return exit_codes.FAILURE

    def _serve(self, bus: _Bus, book: JobBook) -> int:
        bus.send([book.introduce()])
        next_beat_s = time.monotonic()
        sweeper = memory.Sweeper()
        while not self._stop.requested:
            bus.wait(self._wait_s(book))
            for message in bus.receive():
                if isinstance(message, Refused):
                    self._log_refusal(message)
                bus.send(book.receive(message))
            self._turn(bus, book)
            if not self._loop.alive:
                self._log.error("inference_loop_died")
                return exit_codes.FAILURE
            now_s = time.monotonic()
            if now_s >= next_beat_s:
                next_beat_s = now_s + HEARTBEAT_S
                self._beat(bus, now_s)
                sweeper.turn(now_s)
        return exit_codes.OK

    def _log_refusal(self, refused: Refused) -> None:
        self._log.error(
            "protocol_version_refused",
            spoken=[versions.VERSION_MIN, versions.VERSION_MAX],
            broker=[refused.version_min, refused.version_max],
        )

    def _turn(self, bus: _Bus, book: JobBook) -> None:
        """Keep the loop busy first, then send what it has finished."""
        now_s = time.monotonic()
        finished = self._loop.finished()
        if finished is not None:
            took_s = finished.infer_ms / 1000
            self._rest_until_s = now_s + rest_s(len(finished.jobs), took_s, waited=self._waited)
        rested = now_s >= self._rest_until_s or book.fills_a_batch
        if not self._loop.busy and book.queued and rested:
            self._loop.submit(book.take_batch(), now_s)
            self._waited, self._waiting = self._waiting, False
        QUEUED.set(book.queued)
        # Not while it rests: one rest would be the reason for the next.
        self._waiting = self._waiting or (self._loop.busy and book.queued > 0)
        if finished is not None:
            bus.send(book.answer(finished.jobs, finished.recognitions, finished.infer_ms))

    def _wait_s(self, book: JobBook) -> float:
        """How long nothing is to be done unless something arrives."""
        if self._loop.busy or not book.queued:
            return POLL_S
        return min(POLL_S, max(0.001, self._rest_until_s - time.monotonic()))

    def _beat(self, bus: _Bus, now_s: float) -> None:
        busy_s = self._loop.busy_s(now_s)
        if busy_s < self._values.asr_hang_s:
            self._liveness.beat()
            bus.send([Heartbeat(worker_id=self._worker_id, busy_ms=round(busy_s * 1000))])
        else:
            self._log.error("inference_hangs", busy_s=round(busy_s, 1))

    def _drain(self, bus: _Bus, book: JobBook) -> int:
        """Give back what has not begun, finish what has, within the drain time."""
        deadline_s = time.monotonic() + lifecycle.DRAIN_S - FLUSH_S
        bus.send([book.drain()])
        while self._loop.busy and time.monotonic() < deadline_s:
            bus.wait(POLL_S)
            for message in bus.receive():
                bus.send(book.receive(message))
            self._turn(bus, book)
        if not self._loop.busy:
            return exit_codes.OK
        self._log.warning("batch_abandoned", busy_s=round(self._loop.busy_s(time.monotonic()), 1))
        bus.send([book.give_up()])
        return exit_codes.FAILURE


class _Bus:
    """The socket to the broker, and the wake-up from the inference loop, in one poller."""

    def __init__(self, socket: zmq.Socket[bytes], loop: InferenceLoop) -> None:
        self._socket = socket
        self._loop = loop
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(loop.wake_fd, zmq.POLLIN)

    def wait(self, timeout_s: float) -> None:
        """Until something arrives, the inference loop wakes us, or the time is over."""
        events = dict(self._poller.poll(round(timeout_s * 1000)))
        if self._loop.wake_fd in events:
            self._loop.clear_wake()

    def receive(self) -> list[Message]:
        """What has arrived and is of the protocol; the rest is counted."""
        messages = []
        for _ in range(RECEIVE_MAX):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            try:
                messages.append(codec.decode(frames))
            except codec.WireError as error:
                FRAMES_REJECTED.labels(reason="malformed").inc()
                structlog.get_logger().warning("malformed_frames", error=str(error))
        return messages

    def send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            try:
                self._socket.send_multipart(codec.encode(message), zmq.DONTWAIT)
            except zmq.Again:
                # The broker has been away for long. Its next life knows none of these jobs.
                MESSAGES_UNSENT.labels(kind=type(message).__name__).inc()


def main(build_recognizer: Callable[[WorkerSettings], Recognizer] = build) -> int:
    values = settings.load(WorkerSettings)
    logging.configure(values.log_level, values.log_format, "asr_worker")
    stop = lifecycle.StopSignal()
    metrics.serve("asr_worker", values.metrics_port)
    tracing.start("asr_worker", *values.traces())
    code = Worker(values, build_recognizer, stop).run()
    tracing.stop()
    sys.stderr.flush()
    # Not sys.exit: the inference thread may be in a batch that never ends, and unloading torch
    # under a running thread can crash.
    os._exit(code)


if __name__ == "__main__":
    main()
