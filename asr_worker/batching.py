"""Which queued jobs form the next batch. No clock and no I/O: a batch forms from what arrived
while the previous one ran, so under load batches grow by themselves and idle costs no waiting.

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

K = TypeVar("K", bound=Hashable)


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

    def __len__(self) -> int:
        return len(self._queued)

    def __contains__(self, key: K) -> bool:
        return key in self._queued

    def add(self, key: K, *, audio_ms: int, partial: bool) -> None:
        """Queue a job behind the others. The caller gives each key once."""
        assert key not in self._queued, f"{key!r} is queued already"
        self._queued[key] = _Queued(key, audio_ms, partial)

    def remove(self, key: K) -> None:
        del self._queued[key]

    def clear(self) -> list[K]:
        """Take everything out; the keys in order of arrival."""
        keys = list(self._queued)
        self._queued.clear()
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
            del self._queued[job.key]
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
