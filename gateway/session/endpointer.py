"""SANS-IO: speech probabilities of 32 ms frames in, utterance boundaries out.

Speech starts with one frame at ``start_threshold`` and goes on while frames reach the lower
``end_threshold``; it ends with ``endpoint_silence_ms`` below that. Doubtful audio is included:
what lies in no utterance is never recognised, while some silence around speech costs little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.audio.timeline import FRAME_SAMPLES, samples_to_ms
from wire.messages import SAMPLE_RATE_HZ

__all__ = ["FRAME_SAMPLES", "Endpointer", "EndpointerConfig", "Utterance"]

FRAME_MS = FRAME_SAMPLES * 1000 // SAMPLE_RATE_HZ
LIMIT_SEARCH_MS = 5_000
"""An utterance at its limit is cut at the most silent frame of its last this many milliseconds:
long enough to hold a breath of most speakers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointerConfig:
    """When speech starts and ends. Thresholds are probabilities, see ``gateway.audio.vad``."""

    start_threshold: float = 0.15
    end_threshold: float = 0.1
    min_speech_ms: int = 64
    """Less speech than this between two silences is a click and makes no utterance."""
    endpoint_silence_ms: int
    """Silence that ends an utterance."""
    pre_roll_ms: int = 300
    """Audio before the first speech frame that belongs to the utterance."""
    post_roll_ms: int = 300
    """Likewise after the last speech frame; less than ``endpoint_silence_ms``."""
    utterance_ms_max: int = 20_000
    """A longer utterance is cut, at the most silent place near its end."""

    def __post_init__(self) -> None:
        if not 0 < self.end_threshold <= self.start_threshold <= 1:
            raise ValueError("thresholds: 0 < end_threshold <= start_threshold <= 1")
        if min(self.min_speech_ms, self.pre_roll_ms, self.post_roll_ms) < 0:
            raise ValueError("durations must not be negative")
        if self.endpoint_silence_ms < 2 * FRAME_MS:
            raise ValueError(f"endpoint_silence_ms must be at least {2 * FRAME_MS}")
        if self.utterance_ms_max < self.pre_roll_ms + self.endpoint_silence_ms + 500:
            raise ValueError("utterance_ms_max leaves no room for speech")


@dataclass(frozen=True, slots=True)
class Utterance:
    """A piece of the session's timeline that holds speech, in samples at 16 kHz.

    ``reason`` is why it ends: ``endpoint``, silence; ``limit``, ``utterance_ms_max``; ``boundary``
    and ``flush``, the caller said that the audio ends here (see ``Endpointer.boundary``).
    """

    start_sample: int
    end_sample: int
    reason: Literal["endpoint", "limit", "boundary", "flush"]


@dataclass(slots=True)
class _Open:
    """The utterance being spoken. Sample numbers are of the timeline."""

    start_sample: int
    speech_end_sample: int
    """End of its last speech frame."""
    speech_samples: int
    is_rest: bool
    """It goes on after a cut at the limit, so that any speech in it counts."""
    recent: deque[float]
    """Probabilities of its last frames, for a cut at the limit."""


class Endpointer:
    """Utterances of one session. The result depends on the probabilities and on where between
    them ``boundary`` was called, never on how the probabilities were grouped into ``push`` calls.

    Frame ``n`` since the session's beginning covers samples ``512 n`` to ``512 (n + 1)``, whatever
    boundaries lie between. Returned utterances increase and share no audio.
    """

    def __init__(
        self, config: EndpointerConfig, *, first_sample: int = 0, heard_samples: int = 0
    ) -> None:
        """``first_sample``: where the first frame begins, on the session's grid of frames. No
        utterance begins in audio before ``heard_samples``."""
        assert first_sample % FRAME_SAMPLES == 0
        self._config = config
        self._pre_roll = _samples(config.pre_roll_ms)
        self._endpoint_silence = _samples(config.endpoint_silence_ms)
        # One frame less than the silence that ends an utterance, so that no utterance ends in
        # the frame just heard: the session's last frame may be padding in part.
        self._post_roll = min(_samples(config.post_roll_ms), self._endpoint_silence - FRAME_SAMPLES)
        self._length_max = _samples(config.utterance_ms_max)
        search_ms = min(LIMIT_SEARCH_MS, config.utterance_ms_max // 2)
        self._search_frames = max(2, search_ms // FRAME_MS)
        self._position = first_sample
        self._heard = heard_samples
        self._floor = heard_samples
        """Audio before this is in an utterance or before a boundary."""
        self._speech_end = first_sample
        self._open: _Open | None = None

    @property
    def in_speech(self) -> bool:
        return self._open is not None

    @property
    def speech_start_sample(self) -> int | None:
        """Where the open utterance begins, pre-roll included; None when there is none."""
        return None if self._open is None else self._open.start_sample

    @property
    def trailing_silence_ms(self) -> int:
        """Silence at the end of the frames pushed so far."""
        return samples_to_ms(self._position - self._speech_end)

    @property
    def safe_to_forget_sample(self) -> int:
        """Audio before this sample will be in no utterance returned later."""
        if self._open is not None:
            return self._open.start_sample
        return max(self._floor, self._position - self._pre_roll)

    def push(self, probabilities: Sequence[float]) -> list[Utterance]:
        """Take the next frames; returns the utterances that ended with them."""
        utterances = []
        for probability in probabilities:
            utterance = self._step(probability)
            if utterance is not None:
                utterances.append(utterance)
        return utterances

    def boundary(
        self, total_samples: int, reason: Literal["boundary", "flush"] = "boundary"
    ) -> list[Utterance]:
        """The audio ends at ``total_samples`` for good: no utterance will span it.

        An open utterance is closed there. ``total_samples`` must lie less than a frame from the
        end of the frames pushed: after it when the rest of the frame is still to come, before it
        when the last frame was padded.
        """
        assert abs(total_samples - self._position) < FRAME_SAMPLES, "push the frames first"
        utterances = []
        if self._open is not None:
            utterance = self._close(total_samples, reason)
            if utterance is not None:
                utterances.append(utterance)
        self._floor = max(self._floor, total_samples)
        return utterances

    def end_in_silence(self) -> list[Utterance]:
        """End an open utterance in the middle of the silence that follows its last word.

        For a pause that the caller knows to be an end before ``endpoint_silence_ms`` shows it. The
        second half of the silence is left to what comes next: the beginning of a soft consonant
        sounds like silence.
        """
        if self._open is None:
            return []
        speech_end = self._open.speech_end_sample
        half = (self._position - speech_end) // 2
        utterance = self._close(speech_end + min(half, self._post_roll), "boundary")
        return [] if utterance is None else [utterance]

    def _step(self, probability: float) -> Utterance | None:
        frame_start = self._position
        self._position += FRAME_SAMPLES
        utterance = self._open
        if utterance is None:
            if probability >= self._config.start_threshold and self._position > self._heard:
                start = max(self._floor, frame_start - self._pre_roll)
                self._open_at(start, [probability], is_rest=False)
            return None
        utterance.recent.append(probability)
        if probability >= self._config.end_threshold:
            utterance.speech_samples += FRAME_SAMPLES
            utterance.speech_end_sample = self._speech_end = self._position
        elif self._position - utterance.speech_end_sample >= self._endpoint_silence:
            return self._close(utterance.speech_end_sample + self._post_roll, "endpoint")
        if self._position + FRAME_SAMPLES - utterance.start_sample > self._length_max:
            return self._cut(utterance)
        return None

    def _open_at(self, start_sample: int, frames: list[float], *, is_rest: bool) -> None:
        """Open an utterance whose frames up to now are ``frames``."""
        speech = [p >= self._config.end_threshold for p in frames]
        speech_end = start_sample
        if any(speech):
            silent_frames = speech[::-1].index(True)
            speech_end = self._speech_end = self._position - silent_frames * FRAME_SAMPLES
        self._open = _Open(
            start_sample=start_sample,
            speech_end_sample=speech_end,
            speech_samples=sum(speech) * FRAME_SAMPLES,
            is_rest=is_rest,
            recent=deque(frames, maxlen=self._search_frames),
        )

    def _close(
        self, end_sample: int, reason: Literal["endpoint", "boundary", "flush"]
    ) -> Utterance | None:
        utterance = self._open
        assert utterance is not None
        self._open = None
        needed = 1 if utterance.is_rest else _samples(self._config.min_speech_ms)
        if utterance.speech_samples < needed or end_sample <= utterance.start_sample:
            return None
        self._floor = end_sample
        return Utterance(utterance.start_sample, end_sample, reason)

    def _cut(self, utterance: _Open) -> Utterance:
        """End ``utterance`` inside its most silent recent frame and go on behind it."""
        # Not the last frame: it may be padding in part, and its middle past the audio's end.
        frames = list(utterance.recent)
        quietest = min(range(len(frames) - 1), key=lambda n: (frames[n], -n))
        frames_behind = frames[quietest:]
        cut_sample = self._position - len(frames_behind) * FRAME_SAMPLES + FRAME_SAMPLES // 2
        self._floor = cut_sample
        self._open_at(cut_sample, frames_behind, is_rest=True)
        return Utterance(utterance.start_sample, cut_sample, "limit")


def _samples(duration_ms: int) -> int:
    return duration_ms * SAMPLE_RATE_HZ // 1000
