"""Voice activity detection: Silero VAD (``gateway.silero``), one batch for all sessions.

Model: Silero VAD v6 (https://github.com/snakers4/silero-vad, MIT), 512 new samples at 16 kHz per
step with the 64 samples before them and a recurrent state.

What it is fed is amplified and each stream begins as if in silence, because without that the model
misses quiet speakers and first words: of 800 human digits recorded each in a file of its own 58, of
800 at a tenth of their level 123; with both, and the segmenter's thresholds, 1 and 6. It misses no
digit of the synthetic voices in ``tools/voices`` then, down to a hundredth of their level.

The model runs on the event loop, in turns: all requests that came in since the last turn are one
batch. A turn is bounded (``TURN_FRAMES_MAX``), and turns are at least ``TURN_EVERY_S`` apart, so
that many live sessions make large batches, which cost less. A thread would cost more than it
helps: handing each request over and back takes longer than the model, and a thread in numpy waits
for the interpreter lock about fifty times a batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.silero import CONTEXT_SAMPLES, HEARD_SAMPLES, STATE_UNITS, SileroNetwork, model_path
from gateway.timeline import FRAME_SAMPLES
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

FRAME_BYTES: Final = FRAME_SAMPLES * BYTES_PER_SAMPLE
TURN_EVERY_S: Final = 0.025
"""Least time from one turn to the next, unless requests are left over. With 500 live sessions a
batch then has some 400 frames. After a batch of few requests it is less: then there is time to
spare, and a client that sends faster than in real time waits for each of its chunks."""
TURN_REQUESTS_MANY: Final = 8
"""From so many requests in a batch on, turns are ``TURN_EVERY_S`` apart."""
TURN_FRAMES_MAX: Final = 512
"""Frames in one turn, about 6 ms; then the event loop serves others before the next."""
REQUEST_FRAMES_MAX: Final = 64
"""Frames (2 s) of one request in one turn, so that one session's long file does not hold up live
sessions."""
REQUESTS_MAX: Final = 8_192
"""Requests waiting; beyond it ``probabilities`` raises ``VadOverloadedError``. A session waits for
its answer before it asks again, so more means more sessions than connections are admitted."""

_GAIN = np.float32(4)
"""Louder samples are clipped, which the model does not mind."""
_PRIMING_FRAMES = 16
"""Silence (half a second) in the initial state of a stream."""

Floats = npt.NDArray[np.float32]


class VadOverloadedError(Exception):
    """``REQUESTS_MAX`` requests are waiting."""


class VadClosedError(Exception):
    """The engine was closed before the answer was there."""


class VadStream:
    """One session's place in the model: its recurrent state and the last samples heard."""

    __slots__ = ("context", "state")

    def __init__(self) -> None:
        self.state: Floats | None = None
        """Shape (2 * STATE_UNITS,); None before the first call."""
        self.context: Floats = np.zeros(CONTEXT_SAMPLES, np.float32)


@dataclass(slots=True, eq=False)
class _Request:
    stream: VadStream
    pcm: bytes
    answer: asyncio.Future[list[float]]
    probabilities: list[float] = field(default_factory=list)

    @property
    def frames_left(self) -> int:
        return len(self.pcm) // FRAME_BYTES - len(self.probabilities)

    def pcm_of(self, frames: int) -> bytes:
        """The next ``frames``."""
        begin = len(self.probabilities) * FRAME_BYTES
        return self.pcm[begin : begin + frames * FRAME_BYTES]


class VadEngine:
    """``start`` before the first request, ``close`` after the last; all on one event loop."""

    def __init__(self) -> None:
        self._network: SileroNetwork | None = None
        self._initial_state: Floats = np.zeros(2 * STATE_UNITS, np.float32)
        self._waiting: deque[_Request] = deque()
        self._turn: asyncio.Handle | None = None
        self._next_turn_s = 0.0
        self._frames = 0
        self._closed = False

    @property
    def heard_s(self) -> float:
        """Seconds of audio heard so far."""
        return self._frames * FRAME_SAMPLES / SAMPLE_RATE_HZ

    def start(self) -> None:
        """Load the model, about 10 ms."""
        self._network = network = SileroNetwork(model_path())
        silence = network.encode(np.zeros((_PRIMING_FRAMES, HEARD_SAMPLES), np.float32))
        state = np.zeros((1, 2 * STATE_UNITS), np.float32)
        for frame in range(_PRIMING_FRAMES):
            network.advance(silence[frame : frame + 1], state)
        self._initial_state = state[0]

    def close(self) -> None:
        """Requests still waiting fail with ``VadClosedError``."""
        self._closed = True
        if self._turn is not None:
            self._turn.cancel()
        for request in self._waiting:
            if not request.answer.done():
                request.answer.set_exception(VadClosedError())
        self._waiting.clear()

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
        if len(self._waiting) >= REQUESTS_MAX:
            raise VadOverloadedError(f"{REQUESTS_MAX} requests are waiting")
        loop = asyncio.get_running_loop()
        request = _Request(stream, pcm, loop.create_future())
        self._waiting.append(request)
        if self._turn is None:
            self._turn = loop.call_at(self._next_turn_s, self._take_turn, loop)
        return await request.answer

    def _take_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        began_s = loop.time()
        batch, steps = self._next_batch()
        self._next_turn_s = began_s + _pause_s(len(batch))
        try:
            if batch:
                self._step_all(batch, steps)
        except Exception as error:
            # A bug of ours is for those who asked, not the end of speech detection.
            for request in batch:
                request.answer.set_exception(error)
        else:
            for request in batch:
                if request.frames_left:
                    self._waiting.append(request)
                else:
                    request.answer.set_result(request.probabilities)
        self._turn = loop.call_soon(self._take_turn, loop) if self._waiting else None

    def _next_batch(self) -> tuple[list[_Request], list[int]]:
        """Waiting requests, and how many frames of each to step now; longest first."""
        chosen: list[tuple[int, _Request]] = []
        frames = 0
        while self._waiting and frames < TURN_FRAMES_MAX:
            request = self._waiting.popleft()
            if request.answer.done():
                continue  # whoever asked was cancelled meanwhile
            steps = min(request.frames_left, REQUEST_FRAMES_MAX)
            frames += steps
            chosen.append((steps, request))
        chosen.sort(key=lambda each: -each[0])
        return [request for _, request in chosen], [steps for steps, _ in chosen]

    def _step_all(self, batch: list[_Request], steps: list[int]) -> None:
        """``steps`` frames of every request: encoded all at once, then advanced in lockstep."""
        network = self._network
        assert network is not None
        heard, begins = _heard(batch, steps)
        self._frames += len(heard)
        encoded = network.encode(heard)
        state = np.stack([self._state_of(request.stream) for request in batch])
        hidden = np.empty((len(heard), STATE_UNITS), np.float32)
        size = len(batch)
        for step in range(steps[0]):
            # Longest first: the streams that still have this frame are a prefix of the batch.
            while steps[size - 1] <= step:
                size -= 1
            rows = begins[:size] + step
            network.advance(encoded[rows], state[:size])
            hidden[rows] = state[:size, :STATE_UNITS]
        found = network.probabilities(hidden).tolist()
        for n, request in enumerate(batch):
            begin, end = int(begins[n]), int(begins[n]) + steps[n]
            request.probabilities += found[begin:end]
            request.stream.state = state[n].copy()
            request.stream.context = heard[end - 1, -CONTEXT_SAMPLES:].copy()

    def _state_of(self, stream: VadStream) -> Floats:
        return self._initial_state if stream.state is None else stream.state


def _pause_s(requests: int) -> float:
    """From the begin of a turn with so many requests to the next."""
    return TURN_EVERY_S * min(1.0, requests / TURN_REQUESTS_MANY)


def _heard(batch: list[_Request], steps: list[int]) -> tuple[Floats, npt.NDArray[np.intp]]:
    """The frames as the model hears them, each request's one after the other, and where each
    begins."""
    begins = np.cumsum([0, *steps[:-1]])
    pcm = b"".join(request.pcm_of(count) for request, count in zip(batch, steps, strict=True))
    samples = np.frombuffer(pcm, "<i2").reshape(-1, FRAME_SAMPLES)
    heard = np.empty((len(samples), HEARD_SAMPLES), np.float32)
    frames = heard[:, CONTEXT_SAMPLES:]
    np.multiply(samples, _GAIN / np.float32(32768), out=frames)
    np.minimum(np.maximum(frames, -1, out=frames), 1, out=frames)
    heard[1:, :CONTEXT_SAMPLES] = frames[:-1, -CONTEXT_SAMPLES:]
    heard[begins, :CONTEXT_SAMPLES] = [request.stream.context for request in batch]
    return heard, begins
