"""Voice activity detection: Silero VAD (``gateway.audio.silero``), one batch for all sessions.

Model: Silero VAD v6 (https://github.com/snakers4/silero-vad, MIT), 512 new samples at 16 kHz per
step with the 64 samples before them and a recurrent state.

Quiet input is amplified, as long as it is not clipped, and each stream starts as if after silence.
Without both, the model misses quiet speakers and first words: of 800 human digits, each recorded in
a file of its own, 58, and of 800 at a tenth of their level 123; with both, and the endpointer's
thresholds, 1 and 6. It then misses no digit of the synthetic voices in ``tools/voices``, down to a
hundredth of their level. Clipped tones would be heard as speech.

A request of a client that speaks alone is answered at once, on the event loop: for a few frames the
network takes less time than the change to another thread. All others are answered in turns, on a
thread of their own: the requests since the last turn are one batch, one call of onnxruntime, during
which the event loop continues. Turns are bounded (``TURN_FRAMES_MAX``) and at least
``TURN_EVERY_S`` apart, so that many live sessions make large batches, which cost less per frame.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.audio.silero import CONTEXT_SAMPLES, STATE_UNITS, SileroNetwork, model_path
from gateway.audio.timeline import FRAME_SAMPLES
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

FRAME_BYTES: Final = FRAME_SAMPLES * BYTES_PER_SAMPLE
TURN_EVERY_S: Final = 0.05
"""Least time from one turn to the next, unless requests are left over. With 500 live sessions a
batch then has some 800 frames. After a batch of few requests the time is shorter: the processor is
idle, and a client that sends faster than in real time waits for each of its chunks."""
TURN_REQUESTS_MANY: Final = 16
"""After a batch with this many requests, turns are ``TURN_EVERY_S`` apart."""
TURN_FRAMES_MAX: Final = 1_024
"""Frames in one turn, about 10 ms, plus at most one request's. Others wait for the next turn."""
REQUEST_FRAMES_MAX: Final = 64
"""Frames (2 s) of one request in one turn, so that one session's long file does not delay live
sessions."""
REQUEST_FRAMES_MIN: Final = 8
"""Frames of each request that a turn always has room for. With fewer requests there is room for
more, the same for all: the recurrent step runs as often as the longest request has frames."""
ALONE_FRAMES_MAX: Final = 16
"""Frames of a request that are answered on the event loop, in about half a millisecond, if no other
stream made a request within ``TURN_EVERY_S``."""
REQUESTS_MAX: Final = 8_192
"""Requests waiting; beyond it ``probabilities`` raises ``VadOverloadedError``. A session has one
request at a time, so more requests mean more sessions than connections are admitted."""

GAIN_MAX: Final = 4.0
PEAK_DECAY: Final = 0.99
"""Decay of a stream's peak, by frame: two seconds after a loud noise the gain has halved."""
_PEAK_MAX: Final = 32_768.0
_CONTEXT_BYTES = CONTEXT_SAMPLES * BYTES_PER_SAMPLE
_PRIMING_FRAMES = 16
"""Silence (half a second) in the initial state of a stream."""

Floats = npt.NDArray[np.float32]
Samples = npt.NDArray[np.int16]


class VadOverloadedError(Exception):
    """``REQUESTS_MAX`` requests are waiting."""


class VadClosedError(Exception):
    """The engine was closed before it answered."""


class VadStream:
    """One session's state in the model: the recurrent state, the last samples, and the level."""

    __slots__ = ("context", "peak", "state")

    def __init__(self) -> None:
        self.state: Floats | None = None
        """Shape (2, 1, STATE_UNITS); None before the first call."""
        self.context = bytes(_CONTEXT_BYTES)
        self.peak = 0.0
        """Largest sample of the last seconds."""


@dataclass(slots=True, eq=False)
class _Request:
    stream: VadStream
    pcm: bytes
    """Of the frames that are left."""
    answer: asyncio.Future[list[float]]
    probabilities: list[float] = field(default_factory=list)


class VadEngine:
    """``start`` before the first request, ``close`` after the last; all on one event loop."""

    def __init__(self) -> None:
        self._network: SileroNetwork | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vad")
        self._initial_state: Floats = np.zeros((2, 1, STATE_UNITS), np.float32)
        self._waiting: deque[_Request] = deque()
        self._batch: list[_Request] = []
        self._turns: asyncio.Task[None] | None = None
        self._next_turn_s = 0.0
        self._last_stream: VadStream | None = None
        self._last_request_s = 0.0
        self._frames = 0
        self._closed = False

    @property
    def processed_s(self) -> float:
        """Seconds of audio processed so far."""
        return self._frames * FRAME_SAMPLES / SAMPLE_RATE_HZ

    def start(self) -> None:
        """Load the model, about 20 ms."""
        self._network = network = SileroNetwork(model_path())
        silence = np.zeros((_PRIMING_FRAMES, FRAME_SAMPLES), np.int16)
        _, self._initial_state = network.run(
            silence, silence[:1, :CONTEXT_SAMPLES], [_PRIMING_FRAMES], self._initial_state
        )

    def close(self) -> None:
        """Fail waiting requests with ``VadClosedError``. Waits a few milliseconds for the turn in
        progress."""
        self._closed = True
        if self._turns is not None:
            self._turns.cancel()
        for request in (*self._batch, *self._waiting):
            if not request.answer.done():
                request.answer.set_exception(VadClosedError())
        self._waiting.clear()
        self._thread.shutdown()

    async def probabilities(self, stream: VadStream, pcm: bytes) -> list[float]:
        """Probability of speech in each frame of ``pcm``, a whole number of 512-sample frames,
        s16le, that follow those of the stream's last call.

        A stream has one call at a time, in the order of its audio.

        Raises:
            VadOverloadedError: too many requests wait.
            VadClosedError: ``close`` was called.
        """
        assert len(pcm) % FRAME_BYTES == 0
        assert self._network is not None, "not started"
        if not pcm:
            return []
        if self._closed:
            raise VadClosedError
        if self._is_alone(stream) and len(pcm) <= ALONE_FRAMES_MAX * FRAME_BYTES:
            return self._answer_at_once(stream, pcm)
        if len(self._waiting) >= REQUESTS_MAX:
            raise VadOverloadedError(f"{REQUESTS_MAX} requests are waiting")
        request = _Request(stream, pcm, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns())
        return await request.answer

    def _is_alone(self, stream: VadStream) -> bool:
        now_s = time.monotonic()
        others = self._last_stream is not stream and now_s < self._last_request_s + TURN_EVERY_S
        self._last_stream, self._last_request_s = stream, now_s
        return not others and self._turns is None

    def _answer_at_once(self, stream: VadStream, pcm: bytes) -> list[float]:
        assert self._network is not None
        frames = [len(pcm) // FRAME_BYTES]
        (probabilities,), stream.state = self._network.run(*self._inputs([stream], [pcm], frames))
        stream.context = pcm[-_CONTEXT_BYTES:]
        self._frames += frames[0]
        return probabilities

    async def _take_turns(self) -> None:
        """Take turns until no request waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                pause_s = self._next_turn_s - loop.time()
                # A turn that is due is with the thread before the answers of the last one take the
                # event loop. Otherwise each waits for the other, and less audio is processed than
                # arrives although neither is busy all the time.
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                began_s = loop.time()
                self._batch, frames = self._next_batch()
                left = bool(self._waiting) or any(
                    count * FRAME_BYTES < len(request.pcm)
                    for request, count in zip(self._batch, frames, strict=True)
                )
                if self._batch:
                    await self._take_turn(frames)
                # Requests that had no room in this turn do not wait for others.
                self._next_turn_s = began_s + (0 if left else _pause_s(len(self._batch)))
        finally:
            self._batch, self._turns = [], None

    def _next_batch(self) -> tuple[list[_Request], list[int]]:
        """Waiting requests, and the number of frames of each in this turn."""
        most = TURN_FRAMES_MAX // len(self._waiting)
        most = min(REQUEST_FRAMES_MAX, max(REQUEST_FRAMES_MIN, most))
        batch: list[_Request] = []
        frames: list[int] = []
        room = TURN_FRAMES_MAX
        while self._waiting and room > 0:
            request = self._waiting.popleft()
            if not request.answer.done():  # else its caller was cancelled
                batch.append(request)
                frames.append(min(len(request.pcm) // FRAME_BYTES, most))
                room -= frames[-1]
        return batch, frames

    async def _take_turn(self, frames: list[int]) -> None:
        """Process ``frames`` of the batch's requests. Requests with frames left wait again."""
        assert self._network is not None
        streams = [request.stream for request in self._batch]
        pieces = [
            request.pcm[: count * FRAME_BYTES]
            for request, count in zip(self._batch, frames, strict=True)
        ]
        try:
            probabilities, state = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._network.run, *self._inputs(streams, pieces, frames)
            )
        except Exception as error:
            # An internal error fails these requests and not all later ones.
            for request in self._batch:
                if not request.answer.done():
                    request.answer.set_exception(error)
            return
        self._frames += sum(frames)
        for n, (request, pcm, count) in enumerate(zip(self._batch, pieces, frames, strict=True)):
            if request.answer.done():
                continue
            request.probabilities += probabilities[n][:count]
            request.stream.context = pcm[-_CONTEXT_BYTES:]
            request.stream.state = state[:, n : n + 1].copy()
            if len(pcm) < len(request.pcm):
                request.pcm = request.pcm[len(pcm) :]
                self._waiting.append(request)
            else:
                request.answer.set_result(request.probabilities)

    def _inputs(
        self, streams: Sequence[VadStream], pieces: Sequence[bytes], frames: Sequence[int]
    ) -> tuple[Samples, Samples, Sequence[int], Floats, Floats]:
        """The network's arguments for the next ``frames`` of ``streams``, and their PCM."""
        initial = self._initial_state
        states = [initial if each.state is None else each.state for each in streams]
        samples = np.frombuffer(b"".join(pieces), "<i2").reshape(-1, FRAME_SAMPLES)
        contexts = b"".join([stream.context for stream in streams])
        return (
            samples,
            np.frombuffer(contexts, "<i2").reshape(-1, CONTEXT_SAMPLES),
            frames,
            np.concatenate(states, axis=1),
            _gains(streams, frames, _peaks(samples)),
        )


def _pause_s(requests: int) -> float:
    """Time from the beginning of a turn with this many requests to the next."""
    return TURN_EVERY_S * min(1.0, requests / TURN_REQUESTS_MANY)


def _gains(streams: Sequence[VadStream], frames: Sequence[int], peaks: Floats) -> Floats:
    """Amplification of the next ``frames`` of ``streams``, whose largest samples are ``peaks``.
    None is clipped."""
    of_frame = iter(peaks.tolist())
    levels: list[float] = []
    for stream, count in zip(streams, frames, strict=True):
        level = stream.peak
        for peak in itertools.islice(of_frame, count):
            level *= PEAK_DECAY
            if peak > level:
                level = peak
            levels.append(level)
        stream.peak = level
    gains: Floats = np.minimum(GAIN_MAX, _PEAK_MAX / np.maximum(np.array(levels, np.float32), 1))
    return gains


def _peaks(samples: npt.NDArray[np.int16]) -> Floats:
    """The largest magnitude in each frame."""
    highest = samples.max(axis=1).astype(np.float32)
    lowest = samples.min(axis=1).astype(np.float32)
    peaks: Floats = np.maximum(highest, -lowest)
    return peaks
