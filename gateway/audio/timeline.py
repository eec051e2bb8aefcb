"""Core: one session's audio as a continuous timeline of 16 kHz mono s16le PCM. It keeps only the
part that may still become an utterance."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque

from msgspec import Struct

from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, Failure

FRAME_SAMPLES = 512
"""Voice activity detection works on frames of this many samples (32 ms)."""
_FRAME_BYTES = FRAME_SAMPLES * BYTES_PER_SAMPLE

PIECE_BYTES_MIN = 2_048
"""Smaller pieces are joined: a piece of two bytes would take fifty bytes of memory."""
PIECE_BYTES_MAX = 65_536
"""Larger pieces are split: a piece is kept as long as any part of it is needed."""


def samples_to_ms(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE_HZ


CLEAN_STARTS_EVERY_SAMPLES = SAMPLE_RATE_HZ // 4
"""Least distance between two positions at which decoding can restart."""
WARM_UP_SAMPLES = 2 * SAMPLE_RATE_HZ
"""Audio before a segment's end that is decoded again on resume, to warm up speech detection."""


class Notice(Struct, frozen=True):
    """The audio is used, but not all of it, or not as it was meant."""

    code: str
    message: str


class AudioDecoded(Struct, frozen=True, kw_only=True):
    """A decoded chunk, or a piece of a large one: mono s16le PCM at 16 kHz. At the end of the
    audio, its rest: a ``tail`` only, in one piece or several."""

    tail: bytes = b""
    """The last PCM of the previous container, flushed because this chunk begins a new one."""
    pcm: bytes = b""
    """PCM of this chunk."""
    more: bool = False
    """Further pieces follow. The end of the chunk is in the last one."""
    begins_container: bool = False
    """The chunk begins with the beginning of a container."""
    starts_container: bool = False
    """A previous container, or raw PCM, ended just before this chunk."""
    ends_container: bool = False
    """The container is known to end with this chunk."""
    clean_start: bool = False
    """Decoding that restarts at this chunk gives the same PCM: the chunk begins a container, or is
    raw PCM that begins with a whole sample."""
    tail_failure: Failure | None = None
    """The previous container was invalid at its end. This chunk is valid."""
    notices: tuple[Notice, ...] = ()
    """Audio or bytes that were not used, of raw PCM and of containers that ended."""


class Timeline:
    """Append decoded PCM, take whole frames for detection, cut utterances, forget the rest.

    The audio stays in the pieces in which it arrived, at most one more than necessary. One long
    buffer would be copied whenever it grows or loses its beginning.

    ``first_sample`` and ``first_chunk_index`` are the resume point of a session taken over. Frames
    keep their positions: they count from the session's beginning.
    """

    def __init__(self, first_sample: int = 0, first_chunk_index: int = 0) -> None:
        self._pieces: list[bytes] = []
        self._piece_starts: list[int] = []
        """The first sample of each piece."""
        self._first_sample = first_sample
        self.total_samples = first_sample
        """Length of the session so far, including forgotten audio."""
        self.framed_samples = -(-first_sample // FRAME_SAMPLES) * FRAME_SAMPLES
        """The first sample of the next frame."""
        self._clean_starts = deque([(first_sample, first_chunk_index)])
        self._chunk_ends: list[int] = []
        self._chunk_indexes: list[int] = []

    def append(self, pcm: bytes) -> None:
        """Add ``pcm``, which must be whole samples."""
        assert len(pcm) % BYTES_PER_SAMPLE == 0
        if not pcm:
            return
        if self._pieces and len(self._pieces[-1]) < PIECE_BYTES_MIN:
            pcm = self._pieces.pop() + pcm
            self.total_samples = self._piece_starts.pop()
        for begin in range(0, len(pcm), PIECE_BYTES_MAX):
            piece = pcm[begin : begin + PIECE_BYTES_MAX]
            self._piece_starts.append(self.total_samples)
            self._pieces.append(piece)
            self.total_samples += len(piece) // BYTES_PER_SAMPLE

    def begin_chunk(self, chunk_index: int, *, clean_start: bool) -> None:
        """The audio appended next belongs to this chunk; ``clean_start`` as in ``AudioDecoded``."""
        sample = self.total_samples
        if clean_start and sample - self._clean_starts[-1][0] >= CLEAN_STARTS_EVERY_SAMPLES:
            self._clean_starts.append((sample, chunk_index))

    def clean_start_before(self, sample: int) -> tuple[int, int]:
        """The last position at or before ``sample`` where decoding can restart: sample and
        chunk."""
        starts = reversed(self._clean_starts)
        return next((start for start in starts if start[0] <= sample), self._clean_starts[0])

    def end_chunk(self, chunk_index: int) -> None:
        """All audio so far belongs to chunks up to ``chunk_index``. Of consecutive chunks without
        audio, of which there may be any number, only the last is kept: the decoder may return its
        audio later."""
        if self._chunk_ends[-2:] == [self.total_samples] * 2:
            self._chunk_indexes[-1] = chunk_index
            return
        self._chunk_ends.append(self.total_samples)
        self._chunk_indexes.append(chunk_index)

    def chunk_index_at(self, end_sample: int) -> int:
        """Index of the chunk in which a segment ending at ``end_sample`` ends."""
        if not self._chunk_indexes:
            return 0
        index = bisect_left(self._chunk_ends, end_sample)
        return self._chunk_indexes[min(index, len(self._chunk_indexes) - 1)]

    def take_frames(self) -> bytes:
        """PCM of the whole frames not taken before; empty if there are none."""
        begin_sample = self.framed_samples
        # Negative before the first frame of a session that was taken over.
        frames = max(0, (self.total_samples - begin_sample) // FRAME_SAMPLES)
        self.framed_samples += frames * FRAME_SAMPLES
        return self._between(begin_sample, self.framed_samples)

    def take_last_frame(self) -> bytes:
        """The remainder after ``take_frames``, padded with silence to one frame, or empty."""
        rest = self._between(self.framed_samples, self.total_samples)
        assert len(rest) < _FRAME_BYTES, "take_frames first"
        if not rest:
            return b""
        self.framed_samples = self.total_samples
        return rest.ljust(_FRAME_BYTES, b"\0")

    def cut(self, start_sample: int, end_sample: int) -> bytes:
        """PCM from ``start_sample`` to ``end_sample``, which must still be kept."""
        assert self._first_sample <= start_sample <= end_sample <= self.total_samples
        return self._between(start_sample, end_sample)

    def forget_before(self, sample: int) -> None:
        """Free audio before ``sample``, except frames not taken yet."""
        sample = min(sample, self.framed_samples, self.total_samples)
        if sample <= self._first_sample:
            return
        gone = bisect_right(self._piece_starts, sample) - 1
        if sample == self.total_samples:
            gone = len(self._pieces)
        del self._pieces[:gone], self._piece_starts[:gone]
        self._first_sample = sample
        # A later segment may begin exactly at `sample` and ends after it, so the chunk that ends
        # there is no longer needed.
        needed = sample - WARM_UP_SAMPLES
        while len(self._clean_starts) > 1 and self._clean_starts[1][0] <= needed:
            self._clean_starts.popleft()
        index = bisect_left(self._chunk_ends, sample)
        index = min(index, len(self._chunk_ends) - 1)
        del self._chunk_ends[:index], self._chunk_indexes[:index]

    def _between(self, start_sample: int, end_sample: int) -> bytes:
        """PCM of kept audio, copied once."""
        if start_sample >= end_sample:
            return b""
        first = bisect_right(self._piece_starts, start_sample) - 1
        last = bisect_left(self._piece_starts, end_sample) - 1
        begin = (start_sample - self._piece_starts[first]) * BYTES_PER_SAMPLE
        end = (end_sample - self._piece_starts[last]) * BYTES_PER_SAMPLE
        if first == last:
            return self._pieces[first][begin:end]
        pieces = self._pieces[first : last + 1]
        pieces[0] = pieces[0][begin:]
        pieces[-1] = pieces[-1][:end]
        return b"".join(pieces)
