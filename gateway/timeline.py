"""One session's audio: a continuous timeline of 16 kHz mono s16le PCM, of which only the part
that may still become an utterance is kept."""

from __future__ import annotations

from bisect import bisect_left

from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

FRAME_SAMPLES = 512
"""Voice activity detection works on frames of this many samples (32 ms)."""
_FRAME_BYTES = FRAME_SAMPLES * BYTES_PER_SAMPLE


def samples_to_ms(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE_HZ


class Timeline:
    """Append decoded PCM, take whole frames for detection, cut utterances, forget the rest."""

    def __init__(self) -> None:
        self._pcm = bytearray()
        self._first_sample = 0
        self._framed_samples = 0
        self._chunk_ends: list[int] = []
        self._chunk_indexes: list[int] = []

    @property
    def total_samples(self) -> int:
        """Length of the session so far, forgotten audio included."""
        return self._first_sample + len(self._pcm) // BYTES_PER_SAMPLE

    @property
    def kept_bytes(self) -> int:
        return len(self._pcm)

    def append(self, pcm: bytes) -> None:
        """``pcm`` must be whole samples."""
        assert len(pcm) % BYTES_PER_SAMPLE == 0
        self._pcm += pcm

    def end_chunk(self, chunk_index: int) -> None:
        """All audio so far belongs to chunks up to ``chunk_index``."""
        self._chunk_ends.append(self.total_samples)
        self._chunk_indexes.append(chunk_index)

    def chunk_index_at(self, end_sample: int) -> int:
        """Index of the chunk in which a segment ending at ``end_sample`` ends."""
        if not self._chunk_indexes:
            return 0
        place = bisect_left(self._chunk_ends, end_sample)
        return self._chunk_indexes[min(place, len(self._chunk_indexes) - 1)]

    def take_frames(self) -> bytes:
        """PCM of the whole frames that were not taken before; empty if there is none."""
        begin = (self._framed_samples - self._first_sample) * BYTES_PER_SAMPLE
        frames = (len(self._pcm) - begin) // _FRAME_BYTES
        self._framed_samples += frames * FRAME_SAMPLES
        return bytes(self._pcm[begin : begin + frames * _FRAME_BYTES])

    def take_last_frame(self) -> bytes:
        """What is left after ``take_frames``, padded with silence to one frame, or empty."""
        begin = (self._framed_samples - self._first_sample) * BYTES_PER_SAMPLE
        rest = bytes(self._pcm[begin:])
        assert len(rest) < _FRAME_BYTES, "take_frames first"
        if not rest:
            return b""
        self._framed_samples = self.total_samples
        return rest.ljust(_FRAME_BYTES, b"\0")

    def cut(self, start_sample: int, end_sample: int) -> bytes:
        """PCM from ``start_sample`` to ``end_sample``, which must not be forgotten yet."""
        assert self._first_sample <= start_sample <= end_sample <= self.total_samples
        begin = (start_sample - self._first_sample) * BYTES_PER_SAMPLE
        end = (end_sample - self._first_sample) * BYTES_PER_SAMPLE
        return bytes(self._pcm[begin:end])

    def forget_before(self, sample: int) -> None:
        """Free audio before ``sample``; frames not yet taken are kept whatever is asked."""
        sample = min(sample, self._framed_samples, self.total_samples)
        if sample <= self._first_sample:
            return
        del self._pcm[: (sample - self._first_sample) * BYTES_PER_SAMPLE]
        self._first_sample = sample
        # A later segment may begin exactly at `sample`, so the chunk ending there is not needed
        # any more: segments end after they begin.
        place = bisect_left(self._chunk_ends, sample)
        place = min(place, len(self._chunk_ends) - 1)
        del self._chunk_ends[:place], self._chunk_indexes[:place]
