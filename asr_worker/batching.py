"""Which queued jobs form the next batch, and when. No clock and no I/O: a batch forms from what
arrived while the previous one ran, so under load batches grow by themselves and idle costs no
waiting. Where jobs crowd, a batch waits a little for more, see ``rest_s``.

A padded batch costs about what its longest member costs times its size, so members should be of
similar length. Around the *anchor*, which is always the oldest job that must not wait any longer,
the queue's most similar jobs are added while the limits hold.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

PADDED_SHARE_MAX = 1.5
"""Padded length of a batch over its real length. Above it two batches are cheaper than one."""
PARTIAL_PASSES_MAX = 4
"""A partial passed over this often by batches of finals becomes the next anchor."""

REST_SHARE = 2.0
REST_S_MAX = 0.1
"""Rest after a batch, unless of a client alone: a multiple of the time it took, and at most."""

K = TypeVar("K", bound=Hashable)


def rest_s(jobs: int, took_s: float, *, waited: bool) -> float:
    """How long to let jobs gather after a batch of ``jobs`` that took ``took_s``, unless a full
    batch is waiting (``BatchQueue.fills_a_batch``). ``waited``: for the batch before it to end.

    A batch has a price whatever its size: with the demo model 6 ms, as much as it takes for
    another four utterances. Where jobs come faster than one by one, waiting for a few more is
    processor time left to others, and batches that grow with the rest soon are large enough. A
    client alone, whose next job comes after its result, never waits.
    """
    alone = jobs < 2 and not waited
    return 0.0 if alone else min(REST_SHARE * took_s, REST_S_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    jobs_max: int
    audio_ms_max: int
    """Longest member × members. A single longer job is a batch of its own."""


@dataclass(slots=True)
class _Queued(Generic[K]):
    key: K
    audio_ms: int
    partial: bool
    passes: int = 0


class BatchQueue(Generic[K]):
    """Jobs by arrival, known by their keys. The caller bounds their number."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._queued: dict[K, _Queued[K]] = {}
        self._audio_ms = 0

    @property
    def fills_a_batch(self) -> bool:
        """As much is queued as a batch holds; it may still be of too different lengths for one."""
        enough_jobs = len(self._queued) >= self._limits.jobs_max
        return enough_jobs or self._audio_ms >= self._limits.audio_ms_max

    def __len__(self) -> int:
        return len(self._queued)

    def __contains__(self, key: K) -> bool:
        return key in self._queued

    def add(self, key: K, *, audio_ms: int, partial: bool) -> None:
        """Queue a job behind the others. The caller gives each key once."""
        assert key not in self._queued, f"{key!r} is queued already"
        self._queued[key] = _Queued(key, audio_ms, partial)
        self._audio_ms += audio_ms

    def remove(self, key: K) -> None:
        self._audio_ms -= self._queued.pop(key).audio_ms

    def clear(self) -> list[K]:
        """Take everything out; the keys in order of arrival."""
        keys = list(self._queued)
        self._queued.clear()
        self._audio_ms = 0
        return keys

    def take_batch(self) -> list[K]:
        """Keys of the next batch, which leave the queue; empty if the queue is.

        The anchor is the oldest final; a partial only when there is none, or when it was passed
        over PARTIAL_PASSES_MAX times. So a final with n older ones is in one of the next n + 1
        batches of finals, and no job starves.
        """
        if not self._queued:
            return []
        anchor = self._anchor()
        batch = self._fill(anchor)
        for job in batch:
            self.remove(job.key)
        if not anchor.partial:
            for job in self._queued.values():
                job.passes += job.partial
        return [job.key for job in batch]

    def _anchor(self) -> _Queued[K]:
        oldest_final = None
        for job in self._queued.values():
            if job.passes >= PARTIAL_PASSES_MAX:
                return job
            if oldest_final is None and not job.partial:
                oldest_final = job
        return oldest_final or next(iter(self._queued.values()))

    def _fill(self, anchor: _Queued[K]) -> list[_Queued[K]]:
        # sorted() is stable: among equally similar jobs the older goes first.
        others = sorted(
            (job for job in self._queued.values() if job is not anchor),
            key=lambda job: (job.partial, abs(job.audio_ms - anchor.audio_ms)),
        )
        batch = [anchor]
        longest_ms = total_ms = anchor.audio_ms
        for job in others:
            if len(batch) == self._limits.jobs_max:
                break
            new_longest_ms = max(longest_ms, job.audio_ms)
            padded_ms = new_longest_ms * (len(batch) + 1)
            if padded_ms > self._limits.audio_ms_max:
                continue
            if padded_ms > PADDED_SHARE_MAX * (total_ms + job.audio_ms):
                continue
            batch.append(job)
            longest_ms = new_longest_ms
            total_ms += job.audio_ms
        return batch
