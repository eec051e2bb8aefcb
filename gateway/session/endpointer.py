"""Core: speech probabilities of 32 ms frames in, utterance boundaries out.

Speech starts with one frame at ``start_threshold``, continues while frames reach the lower
``end_threshold``, and ends after ``endpoint_silence_ms`` below that. Doubtful audio is included:
audio outside utterances is never recognised, while some silence around speech costs little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from msgspec import Struct

from gateway.audio.timeline import FRAME_SAMPLES, samples_to_ms
from wire.messages import SAMPLE_RATE_HZ

FRAME_MS = FRAME_SAMPLES * 1000 // SAMPLE_RATE_HZ
START_THRESHOLD = 0.15
CLIENT_SILENCE_MS_MIN = 100
CLIENT_SILENCE_MS_MAX = 3_000
CLIENT_PRE_ROLL_MS_MAX = 2_000
CLIENT_THRESHOLD_MIN = 0.01
"""Limits of ``Endpointing``."""
N = TypeVar("N", int, float)
LIMIT_SEARCH_MS = 5_000
"""An utterance at its limit is cut at the most silent frame of its last 5 s, in which most speakers
take a breath."""


class Endpointing(Struct, frozen=True, kw_only=True):
    """A client's choices for its session's ``EndpointerConfig``; None: the gateway's value."""

    silence_ms: int | None = None
    pre_roll_ms: int | None = None
    start_threshold: float | None = None
    """``end_threshold`` changes in proportion."""

    def within_limits(self) -> Endpointing:
        """Return the nearest values that are allowed."""
        return Endpointing(
            silence_ms=_limited(self.silence_ms, CLIENT_SILENCE_MS_MIN, CLIENT_SILENCE_MS_MAX),
            pre_roll_ms=_limited(self.pre_roll_ms, 0, CLIENT_PRE_ROLL_MS_MAX),
            start_threshold=_limited(self.start_threshold, CLIENT_THRESHOLD_MIN, 1.0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointerConfig:
    """When speech starts and ends. Thresholds are probabilities, see ``gateway.audio.vad``."""

    start_threshold: float = START_THRESHOLD
    end_threshold: float = 0.1
    min_speech_ms: int = 64
    """Shorter speech between two silences is a click and not an utterance."""
    endpoint_silence_ms: int
    """Silence that ends an utterance."""
    pre_roll_ms: int = 300
    """Audio before the first speech frame that is part of the utterance."""
    post_roll_ms: int = 300
    """Likewise after the last speech frame. Less than ``endpoint_silence_ms``."""
    utterance_ms_max: int = 20_000
    """A longer utterance is cut at its most silent frame near the end."""

    def __post_init__(self) -> None:
        if not 0 < self.end_threshold <= self.start_threshold <= 1:
            raise ValueError("thresholds: 0 < end_threshold <= start_threshold <= 1")
        if min(self.min_speech_ms, self.pre_roll_ms, self.post_roll_ms) < 0:
            raise ValueError("durations must not be negative")
        if self.endpoint_silence_ms < 2 * FRAME_MS:
            raise ValueError(f"endpoint_silence_ms must be at least {2 * FRAME_MS}")
        if self.utterance_ms_max < self.pre_roll_ms + self.endpoint_silence_ms + 500:
            raise ValueError("utterance_ms_max leaves no room for speech")

    def chosen(self, by_client: Endpointing) -> EndpointerConfig:
        """Return this configuration with the client's choices, within their limits."""
        by_client = by_client.within_limits()
        start = by_client.start_threshold or self.start_threshold
        pre_roll_ms = by_client.pre_roll_ms
        return replace(
            self,
            start_threshold=start,
            end_threshold=self.end_threshold * start / self.start_threshold,
            endpoint_silence_ms=by_client.silence_ms or self.endpoint_silence_ms,
            pre_roll_ms=self.pre_roll_ms if pre_roll_ms is None else pre_roll_ms,
        )


@dataclass(frozen=True, slots=True)
class Utterance:
    """A part of the session's timeline that holds speech, in samples at 16 kHz."""

    start_sample: int
    end_sample: int
    continues: bool = False
    """It was cut at the limit, and the speech continues."""
    silence_before: int = field(default=0, compare=False)
    """Samples of silence before its first speech."""


@dataclass(slots=True)
class _Open:
    """The utterance being spoken, in samples of the timeline."""

    start_sample: int
    speech_end_sample: int
    """End of its last speech frame."""
    speech_samples: int
    is_rest: bool
    """It continues after a cut at the limit, so that any speech in it counts."""
    silence_before: int
    recent: deque[float]
    """Probabilities of its last frames, for a cut at the limit."""


class Endpointer:
    """Finds the utterances of one session.

    The result depends on the probabilities and on the positions of ``boundary``, not on how the
    probabilities are grouped into calls of ``push``. Frame ``n`` of the session covers samples
    ``512 n`` to ``512 (n + 1)``, including after boundaries. Utterances are in order and do not
    overlap.
    """

    def __init__(
        self, config: EndpointerConfig, *, first_sample: int = 0, recognised_samples: int = 0
    ) -> None:
        """``first_sample`` is the beginning of the first frame, a multiple of a frame's samples. No
        utterance begins in audio before ``recognised_samples``."""
        assert first_sample % FRAME_SAMPLES == 0
        self._config = config
        self._pre_roll = _samples(config.pre_roll_ms)
        self._endpoint_silence = _samples(config.endpoint_silence_ms)
        # One frame less than the silence that ends an utterance, so that no utterance ends in the
        # latest frame: the session's last frame may be padded.
        self._post_roll = min(_samples(config.post_roll_ms), self._endpoint_silence - FRAME_SAMPLES)
        self._length_max = _samples(config.utterance_ms_max)
        search_ms = min(LIMIT_SEARCH_MS, config.utterance_ms_max // 2)
        self._search_frames = max(2, search_ms // FRAME_MS)
        self.position = first_sample
        """End of the frames pushed so far."""
        self._recognised = recognised_samples
        self._floor = recognised_samples
        """Audio before this is in an utterance or before a boundary."""
        self._speech_end = first_sample
        self._open: _Open | None = None

    @property
    def speech_start_sample(self) -> int | None:
        """Start of the open utterance, including pre-roll; None if there is none."""
        return None if self._open is None else self._open.start_sample

    @property
    def certain_start(self) -> tuple[int, int] | None:
        """Start of the open utterance and samples of silence before its speech, once it is long
        enough not to be a click; else None."""
        utterance = self._open
        if utterance is None or utterance.speech_samples < self._speech_needed(utterance):
            return None
        return utterance.start_sample, utterance.silence_before

    @property
    def trailing_silence_ms(self) -> int:
        """Silence at the end of the frames pushed so far."""
        return samples_to_ms(self.position - self._speech_end)

    @property
    def safe_to_forget_sample(self) -> int:
        """No later utterance contains audio before this sample."""
        if self._open is not None:
            return self._open.start_sample
        return max(self._floor, self.position - self._pre_roll)

    def push(self, probabilities: Sequence[float]) -> list[Utterance]:
        """Take the probabilities of the next frames. Returns the utterances that ended in them."""
        return [ended for each in probabilities if (ended := self._step(each)) is not None]

    def boundary(self, total_samples: int) -> list[Utterance]:
        """The audio ends at ``total_samples``: no utterance spans it, and an open one ends there.

        ``total_samples`` must be less than a frame away from the end of the pushed frames: behind
        it while a part of a frame is missing, before it if the last frame was padded.
        """
        assert abs(total_samples - self.position) < FRAME_SAMPLES, "push the frames first"
        utterance = None if self._open is None else self._close(self._open, total_samples)
        self._floor = max(self._floor, total_samples)
        return [] if utterance is None else [utterance]

    def end_in_silence(self) -> list[Utterance]:
        """End an open utterance in the middle of the silence after its last word.

        For an end that the caller knows before ``endpoint_silence_ms`` has passed. The second half
        of the silence is left to the next utterance: a soft initial consonant sounds like silence.
        """
        if self._open is None:
            return []
        speech_end = self._open.speech_end_sample
        half = (self.position - speech_end) // 2
        utterance = self._close(self._open, speech_end + min(half, self._post_roll))
        return [] if utterance is None else [utterance]

    def _step(self, probability: float) -> Utterance | None:
        frame_start = self.position
        self.position += FRAME_SAMPLES
        utterance = self._open
        if utterance is None:
            if probability >= self._config.start_threshold and self.position > self._recognised:
                start = max(self._floor, frame_start - self._pre_roll)
                silence = frame_start - self._speech_end
                self._open_at(start, [probability], is_rest=False, silence_before=silence)
            return None
        utterance.recent.append(probability)
        if probability >= self._config.end_threshold:
            utterance.speech_samples += FRAME_SAMPLES
            utterance.speech_end_sample = self._speech_end = self.position
        elif self.position - utterance.speech_end_sample >= self._endpoint_silence:
            return self._close(utterance, utterance.speech_end_sample + self._post_roll)
        if self.position + FRAME_SAMPLES - utterance.start_sample > self._length_max:
            return self._cut(utterance)
        return None

    def _open_at(
        self, start_sample: int, frames: list[float], *, is_rest: bool, silence_before: int = 0
    ) -> None:
        """Open an utterance with the probabilities ``frames`` so far."""
        speech = [p >= self._config.end_threshold for p in frames]
        speech_end = start_sample
        if any(speech):
            silent_frames = speech[::-1].index(True)
            speech_end = self._speech_end = self.position - silent_frames * FRAME_SAMPLES
        self._open = _Open(
            start_sample=start_sample,
            speech_end_sample=speech_end,
            speech_samples=sum(speech) * FRAME_SAMPLES,
            is_rest=is_rest,
            silence_before=silence_before,
            recent=deque(frames, maxlen=self._search_frames),
        )

    def _close(self, utterance: _Open, end_sample: int) -> Utterance | None:
        self._open = None
        is_click = utterance.speech_samples < self._speech_needed(utterance)
        if is_click or end_sample <= utterance.start_sample:
            return None
        self._floor = end_sample
        return Utterance(
            utterance.start_sample, end_sample, silence_before=utterance.silence_before
        )

    def _speech_needed(self, utterance: _Open) -> int:
        """Least samples of speech in an utterance; less is a click."""
        return 1 if utterance.is_rest else _samples(self._config.min_speech_ms)

    def _cut(self, utterance: _Open) -> Utterance:
        """End ``utterance`` in the middle of its most silent recent frame, and open the rest."""
        # Not the last frame: it may be padded, and its middle may lie behind the audio's end.
        frames = list(utterance.recent)
        quietest = min(range(len(frames) - 1), key=lambda n: (frames[n], -n))
        frames_behind = frames[quietest:]
        cut_sample = self.position - len(frames_behind) * FRAME_SAMPLES + FRAME_SAMPLES // 2
        self._floor = cut_sample
        self._open_at(cut_sample, frames_behind, is_rest=True)
        return Utterance(
            utterance.start_sample,
            cut_sample,
            continues=True,
            silence_before=utterance.silence_before,
        )


def _limited(value: N | None, least: N, most: N) -> N | None:
    return None if value is None else min(max(value, least), most)


def _samples(duration_ms: int) -> int:
    return duration_ms * SAMPLE_RATE_HZ // 1000
