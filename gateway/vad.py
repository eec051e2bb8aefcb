"""Voice activity detection: Silero VAD on onnxruntime, one batched call for all sessions.

Model: Silero VAD v6 (https://github.com/snakers4/silero-vad, MIT), 512 new samples at 16 kHz per
step with the 64 samples before them and a recurrent state. The model file comes with the
``silero_vad`` package, which is located but never imported: it would import torch.

What it is fed is amplified and each stream begins as if in silence, because without that the model
misses quiet speakers and first words: of 800 human digits recorded each in a file of its own 58, of
800 at a tenth of their level 123; with both, and the segmenter's thresholds, 1 and 6. It misses no
digit of the synthetic voices in ``tools/voices`` then, down to a hundredth of their level.

One thread runs the model. It takes all requests that came in while it was busy and steps their
streams in lockstep: frame k of every stream is one batch, so batching needs no timer.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from gateway.timeline import FRAME_SAMPLES
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

FRAME_BYTES: Final = FRAME_SAMPLES * BYTES_PER_SAMPLE
BATCH_STREAMS_MAX: Final = 512
"""Streams in one model call; more are served by further calls."""
REQUEST_FRAMES_MAX: Final = 250
"""Frames (8 s) of one request that are stepped before other waiting requests get their turn, so
that one session's long file does not hold up live sessions."""
REQUESTS_MAX: Final = 8_192
"""Requests waiting; beyond it ``probabilities`` raises ``VadOverloadedError``. A session waits for
its answer before it asks again, so more means more sessions than connections are admitted."""

_GAIN = np.float32(4)
"""Louder samples are clipped, which the model does not mind."""
_PRIMING_FRAMES = 16
"""Silence (half a second) in the initial state of a stream."""
_CONTEXT_SAMPLES = 64
_STATE_UNITS = 128

Floats = npt.NDArray[np.float32]


class VadOverloadedError(Exception):
    """``REQUESTS_MAX`` requests are waiting."""


class VadClosedError(Exception):
    """The engine was closed before the answer was there."""


def model_path() -> Path:
    """The model file in the installed ``silero_vad`` package."""
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("package silero-vad is not installed")
    return Path(spec.submodule_search_locations[0]) / "data" / "silero_vad_16k_op15.onnx"


class VadStream:
    """One session's place in the model: its recurrent state and the last samples heard."""

    __slots__ = ("context", "state")

    def __init__(self) -> None:
        self.state: Floats | None = None
        """Shape (2, _STATE_UNITS); None before the first call."""
        self.context: Floats = np.zeros(_CONTEXT_SAMPLES, np.float32)


@dataclass(slots=True, eq=False)
class _Request:
    stream: VadStream
    frames: Floats
    """Shape (frames, FRAME_SAMPLES), as the model gets them."""
    answer: Future[list[float]]
    probabilities: list[float] = field(default_factory=list)
    _begun: bool = False

    def begin(self) -> bool:
        """Whether to serve it: False when whoever asked was cancelled meanwhile."""
        # Once it is running, a future can't be cancelled, and its result can be set without care.
        self._begun = self._begun or self.answer.set_running_or_notify_cancel()
        return self._begun

    @property
    def frames_left(self) -> int:
        return len(self.frames) - len(self.probabilities)


class VadEngine:
    """``start`` before the first request, ``close`` after the last. Both from any thread."""

    def __init__(self) -> None:
        self._session: Any = None
        self._initial_state: Floats = np.zeros((2, _STATE_UNITS), np.float32)
        self._waiting: deque[_Request] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load the model (about 50 ms) and start the inference thread."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # the model file has unused initializers: a warning each
        self._session = onnxruntime.InferenceSession(
            str(model_path()), options, providers=["CPUExecutionProvider"]
        )
        silence = _Request(
            VadStream(), np.zeros((_PRIMING_FRAMES, FRAME_SAMPLES), np.float32), Future()
        )
        self._step_all([silence])
        assert silence.stream.state is not None
        self._initial_state = silence.stream.state
        self._thread = threading.Thread(target=self._run, name="vad", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; requests still waiting fail with ``VadClosedError``."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    async def probabilities(self, stream: VadStream, pcm: bytes) -> list[float]:
        """Probability of speech in each frame of ``pcm``, a whole number of 512-sample frames,
        s16le, that follow those of the stream's last call.

        A stream has one call at a time, in the order of its audio.

        Raises:
            VadOverloadedError: too many requests wait.
            VadClosedError: ``close`` was called.
        """
        assert len(pcm) % FRAME_BYTES == 0
        assert self._session is not None, "not started"
        if not pcm:
            return []
        samples = np.frombuffer(pcm, "<i2").astype(np.float32)
        frames = np.clip(samples * (_GAIN / np.float32(32768)), -1, 1).reshape(-1, FRAME_SAMPLES)
        request = _Request(stream, frames, Future())
        with self._wake:
            if self._closing:
                raise VadClosedError
            if len(self._waiting) >= REQUESTS_MAX:
                raise VadOverloadedError(f"{REQUESTS_MAX} requests are waiting")
            self._waiting.append(request)
            self._wake.notify()
        return await asyncio.wrap_future(request.answer)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if not batch:
                continue  # all of them were cancelled
            try:
                self._step_all(batch)
            except Exception as error:
                # Whatever the model runtime raises is for those who asked, not the thread's end.
                for request in batch:
                    request.answer.set_exception(error)
                continue
            for request in batch:
                if request.frames_left == 0:
                    request.answer.set_result(request.probabilities)
            self._put_back([request for request in batch if request.frames_left])

    def _next_batch(self) -> list[_Request] | None:
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            if self._closing:
                for request in filter(_Request.begin, self._waiting):
                    request.answer.set_exception(VadClosedError())
                self._waiting.clear()
                return None
            size = min(len(self._waiting), BATCH_STREAMS_MAX)
            taken = [self._waiting.popleft() for _ in range(size)]
            return [request for request in taken if request.begin()]

    def _put_back(self, unfinished: list[_Request]) -> None:
        with self._wake:
            self._waiting.extend(unfinished)

    def _step_all(self, batch: list[_Request]) -> None:
        """Up to ``REQUEST_FRAMES_MAX`` frames of every request, in lockstep."""
        # Longest first: the streams that still have a frame k are then a prefix of the batch.
        batch = sorted(batch, key=lambda request: -request.frames_left)
        states = [request.stream.state for request in batch]
        state = np.stack([self._initial_state if s is None else s for s in states], axis=1)
        context = np.stack([request.stream.context for request in batch])
        done = [len(request.probabilities) for request in batch]
        steps = [min(request.frames_left, REQUEST_FRAMES_MAX) for request in batch]
        rate = np.array(SAMPLE_RATE_HZ, np.int64)
        size = len(batch)
        for step in range(steps[0]):
            while steps[size - 1] <= step:
                size -= 1
            frames = np.stack([r.frames[done[n] + step] for n, r in enumerate(batch[:size])])
            heard = np.concatenate([context[:size], frames], axis=1)
            output, new_state = self._session.run(
                None, {"input": heard, "state": state[:, :size], "sr": rate}
            )
            state[:, :size] = new_state
            context[:size] = frames[:, -_CONTEXT_SAMPLES:]
            for request, probability in zip(batch, output[:, 0].tolist(), strict=False):
                request.probabilities.append(probability)
        for n, request in enumerate(batch):
            request.stream.state = state[:, n].copy()
            request.stream.context = context[n].copy()
