"""One worker process: jobs from the broker in, results out (``python -m asr_worker.service``).

The main thread owns the socket and performs what the job book returns. If the inference thread
hangs, it sends no heartbeats: the silence makes the broker reassign the jobs and the supervisor
restart the process.
"""

from __future__ import annotations

import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NoReturn

import structlog
import zmq
from msgspec.structs import replace

from asr_worker.batching import HANG_TIMES_EXPECTED, BatchPacing
from asr_worker.inference import InferenceLoop
from asr_worker.job_book import (
    Action,
    JobBook,
    JobBooks,
    JobKey,
    JobsDiscarded,
    MessageRejected,
    key_of,
)
from asr_worker.metrics import (
    FRAMES_REJECTED,
    JOBS_DISCARDED,
    LOAD_SECONDS,
    MESSAGES_UNSENT,
    MODEL,
    QUEUED,
)
from asr_worker.recognizer.loading import build
from asr_worker.recognizer.protocol import ModelLoadError, Recognizer
from asr_worker.recognizer.trial import Trial, measure
from asr_worker.settings import WorkerSettings
from runtime import exit_codes, lifecycle, logging, memory, metrics, settings, tracing
from runtime.bus_link import Links
from runtime.liveness import Liveness
from runtime.usage import UsageMeter
from wire import codec, versions
from wire.messages import Heartbeat, Message, Ready, Refused, Usage, WorkerJob, WorkerResult
from wire.sockets import Context, connect_dealer, new_identity, received, send

HEARTBEAT_S = 1.0
USAGE_S = 2.0
"""Interval of heartbeats with the usage of the process."""
POLL_S = 0.1
"""Longest wait for messages, and so the longest delay before SIGTERM is noticed."""
WAIT_S_MIN = 0.001
"""Shortest wait during a rest between batches."""
ARRIVALS_MAX = 4_096
"""Jobs without a result whose times of arrival are kept; beyond it the oldest is forgotten, and its
result has no ``held_ms``."""
RECEIVE_MAX = 256
"""Messages received per turn, so that a flood cannot delay results."""
LOAD_S_MAX = 1_800.0
"""Loading, including a download from a hub, counts as hanging after this."""
FLUSH_S = 0.5
"""Part of the drain deadline reserved for sending the last messages."""


class Worker:
    """The life of one worker process. Create and run it on the main thread."""

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
        self._liveness = Liveness()
        self._build_recognizer = build_recognizer
        self._trial: Trial | None = None
        self._hang_s = values.asr_hang_s
        """The current batch hangs if it takes longer."""
        self._loop = InferenceLoop(self._build)
        self._usage = UsageMeter()
        self._usage_due_s = 0.0
        self._pacing = BatchPacing()
        self._refused: Refused | None = None

    def run(self) -> int:
        """Load the model, serve until the stop signal, drain. Returns the exit code."""
        key_files = self._values.bus_keys("worker")
        recognizer = self._load()
        if self._stop.requested:
            return exit_codes.OK
        trial = self._trial
        if recognizer is None or trial is None:
            return self._exit_code_without_model()
        context: Context = zmq.Context()
        poller = zmq.Poller()
        links = Links(
            self._values.broker_backend,
            lambda endpoint, keys, events: connect_dealer(
                context, endpoint, self._worker_id, keys, events=events
            ),
            key_files,
            poller,
            time.monotonic(),
        )
        served_name = self._values.asr_served_name or recognizer.model
        system_id = self._values.system_id
        worker = Ready(
            worker_id=self._worker_id,
            credits=0,
            model=recognizer.model,
            device=recognizer.device,
            throughput_rtfx=trial.throughput_rtfx,
            abilities=replace(recognizer.abilities, batch_jobs=trial.limits.usual_jobs),
            served_name=served_name,
            system_id=system_id,
        )
        book = JobBook(worker, trial.limits)
        MODEL.labels(recognizer.model, recognizer.device).set(1)
        memory.settle()
        self._log.info("worker_ready", model=recognizer.model, device=recognizer.device)
        bus = _Bus(links, poller, self._loop, book)
        try:
            code = self._serve(bus, book)
            if code == exit_codes.OK:
                code = self._drain(bus, book)
        finally:
            self._loop.close()
            # Bounded: without a broker these messages cannot be delivered.
            links.close(linger_ms=round(FLUSH_S * 1000))
            context.term()
        self._log.info("worker_ended", exit_code=code)
        return code

    def _build(self) -> Recognizer:
        """Runs on the inference thread."""
        recognizer = self._build_recognizer(self._values)
        values = self._values
        self._trial = measure(recognizer, values.asr_batch_jobs_max, values.asr_batch_audio_ms_max)
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
        next_beat_s = time.monotonic()
        sweeper = memory.Sweeper()
        while not self._stop.requested:
            bus.wait(self._wait_s(book))
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

    def _turn(self, bus: _Bus, book: JobBook) -> None:
        """Receive jobs, start the next batch, then send the results of the finished one."""
        bus.follow()
        for place, message in bus.receive():
            if isinstance(message, Refused):
                self._note_refusal(message)
            bus.perform(bus.books.by_place[place].receive(message), place)
        now_s = time.monotonic()
        finished = self._loop.finished()
        if finished is not None:
            jobs, took_s = len(finished.jobs), finished.infer_ms / 1000
            self._pacing.batch_ended(now_s, jobs=jobs, took_s=took_s)
        may_start = book.fills_a_batch or self._pacing.wait_s(now_s) <= 0
        if not self._loop.busy and book.queued and may_start:
            self._start_batch(book, now_s)
        if self._loop.busy and book.queued:
            self._pacing.jobs_wait()
        QUEUED.set(book.queued)
        if finished is not None:
            bus.answer(book.answer(finished.jobs, finished.recognitions, finished.infer_ms))

    def _note_refusal(self, refused: Refused) -> None:
        # The broker refuses each READY; log the first refusal.
        if refused != self._refused:
            self._refused = refused
            event, details = versions.explain(refused, self._values.system_id)
            self._log.error(event, **details)

    def _start_batch(self, book: JobBook, now_s: float) -> None:
        recognizer = self._loop.recognizer
        assert recognizer is not None
        book.limit_jobs(recognizer.abilities.batch_jobs)
        batch = book.take_batch()
        expected_s = book.expected_s(batch)
        self._hang_s = max(self._values.asr_hang_s, HANG_TIMES_EXPECTED * expected_s)
        self._loop.submit(batch, now_s)
        self._pacing.batch_started()

    def _wait_s(self, book: JobBook) -> float:
        """Longest wait for messages until the next batch may start."""
        if self._loop.busy or not book.queued:
            return POLL_S
        return min(POLL_S, max(WAIT_S_MIN, self._pacing.wait_s(time.monotonic())))

    def _beat(self, bus: _Bus, now_s: float) -> None:
        busy_s = self._loop.busy_s(now_s)
        if busy_s < self._hang_s:
            self._liveness.beat()
            usage = None
            if now_s >= self._usage_due_s:
                self._usage_due_s = now_s + USAGE_S
                usage = Usage(**self._usage.read())
            for place, book in bus.books.by_place.items():
                beat = Heartbeat(
                    worker_id=self._worker_id,
                    busy_ms=round(busy_s * 1000),
                    usage=usage,
                    credits=book.credits,
                    streamed_credits=book.streamed_credits,
                )
                bus.perform([beat], place)
        else:
            self._log.error("inference_hangs", busy_s=round(busy_s, 1))

    def _drain(self, bus: _Bus, book: JobBook) -> int:
        """Return the queued jobs and finish the running ones before the drain deadline."""
        deadline_s = time.monotonic() + lifecycle.DRAIN_S - FLUSH_S
        for place, each in bus.books.by_place.items():
            bus.perform([each.drain()], place)
        while self._loop.busy and time.monotonic() < deadline_s:
            bus.wait(POLL_S)
            self._turn(bus, book)
        if not self._loop.busy:
            return exit_codes.OK
        self._log.warning("batch_abandoned", busy_s=round(self._loop.busy_s(time.monotonic()), 1))
        for place, each in bus.books.by_place.items():
            bus.perform([each.give_up()], place)
        return exit_codes.FAILURE


class _Bus:
    """The brokers' sockets and the inference thread's wake-up in one poller, and the books."""

    def __init__(
        self, links: Links, poller: zmq.Poller, loop: InferenceLoop, first: JobBook
    ) -> None:
        self.books = JobBooks(first)
        self._links, self._poller, self._loop = links, poller, loop
        self._arrived_s: OrderedDict[JobKey, float] = OrderedDict()
        """Times of arrival of the jobs that have no result yet."""
        poller.register(loop.wake_fd, zmq.POLLIN)

    def follow(self) -> None:
        new = self._links.turn(time.monotonic())
        places = [place for place, _ in self._links]
        for place, action in self.books.follow(places, self._links.connected, new):
            self.perform([action], place)

    def wait(self, timeout_s: float) -> None:
        """Wait for a message, a wake-up by the inference thread, or the timeout."""
        events = dict(self._poller.poll(round(timeout_s * 1000)))
        if self._loop.wake_fd in events:
            self._loop.clear_wake()

    def receive(self) -> list[tuple[str, Message]]:
        """Return the messages that have arrived, with the places of their brokers."""
        messages = []
        now_s = time.monotonic()
        for place, link in self._links:
            for frames in received(link.socket, RECEIVE_MAX):
                try:
                    message = codec.decode(frames)
                except codec.WireError as error:
                    FRAMES_REJECTED.labels(reason="malformed").inc()
                    structlog.get_logger().warning("malformed_frames", error=str(error))
                    continue
                messages.append((place, message))
                if isinstance(message, WorkerJob) and link.leaves_host:
                    self._note_arrival(key_of(message), now_s)
        return messages

    def _note_arrival(self, job: JobKey, now_s: float) -> None:
        self._arrived_s[job] = now_s
        if len(self._arrived_s) > ARRIVALS_MAX:
            self._arrived_s.popitem(last=False)

    def answer(self, results: Iterable[WorkerResult]) -> None:
        """Send each result to the broker that assigned its job."""
        now_s = time.monotonic()
        for result in results:
            arrived_s = self._arrived_s.pop(key_of(result), None)
            if arrived_s is not None:
                result = replace(result, held_ms=round((now_s - arrived_s) * 1000))
            if (place := self.books.place_of(result)) is None:
                JOBS_DISCARDED.labels("old_epoch").inc()
            else:
                self.perform([result], place)

    def perform(self, actions: Iterable[Action], place: str) -> None:
        """Send the messages among ``actions`` to the broker at ``place``, count the rest."""
        for action in actions:
            match action:
                case JobsDiscarded(reason, jobs):
                    JOBS_DISCARDED.labels(reason).inc(jobs)
                case MessageRejected(reason):
                    FRAMES_REJECTED.labels(reason).inc()
                case message:
                    self._send(message, place)

    def _send(self, message: Message, place: str) -> None:
        link = self._links.get(place)
        assert link is not None
        if isinstance(message, Ready):
            message = replace(message, answers_marks=link.leaves_host)
        if not send(link.socket, codec.encode(message)):
            # The broker has been away for long. Its next epoch knows none of these jobs.
            MESSAGES_UNSENT.labels(kind=type(message).__name__).inc()


def main(build_recognizer: Callable[[WorkerSettings], Recognizer] = build) -> NoReturn:
    values = settings.load(WorkerSettings)
    logging.configure(values.log_level, values.log_format, "asr_worker")
    stop = lifecycle.StopSignal()
    metrics.serve("asr_worker", values.metrics_port, values.metrics_host)
    tracing.start("asr_worker", values.otel_exporter_otlp_endpoint, values.otel_traces_sampler_arg)
    code = Worker(values, build_recognizer, stop).run()
    tracing.stop()
    sys.stderr.flush()
    # Not sys.exit: the inference thread may be stuck in a batch, and unloading torch under a
    # running thread can crash.
    os._exit(code)


if __name__ == "__main__":
    main()
