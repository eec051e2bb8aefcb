"""Core: which queued jobs form the next batch, and when it starts.

A batch forms from the jobs that arrived while the previous one ran, so batches grow with the load
and an idle worker adds no delay. Under load a batch waits briefly for more jobs, see
``BatchPacing``.

A padded batch costs about its longest member's duration times its size, so members should have
similar lengths. The *anchor* of a batch is the oldest job that must not wait any longer; the jobs
closest to it in length join it while the limits hold. All have the same options, so that a batch is
one pass of the model, and its results are sent when that pass ends.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from wire.messages import Cost

PADDED_SHARE_MAX = 1.5
"""Padded duration of a batch over its real duration. Above this, two batches are cheaper."""
PARTIAL_PASSES_MAX = 4
"""A partial passed over by this many batches of finals becomes the next anchor."""
MIXED_BATCH_S_MAX = 0.25
"""Longest expected duration of a batch of finals that partials join: they must hardly delay it."""
BATCH_S_MAX = 1.0
"""Longest expected duration of a batch of several jobs: a final that arrives waits for it."""
USUAL_MS = 3_000
"""Length of a usual utterance."""
HANG_TIMES_EXPECTED = 10.0
"""A batch that takes longer than this multiple of its expected duration, and longer than
``ASR_HANG_S``, hangs."""

REST_TIMES_BATCH = 10.0
"""Rest after a batch, as a multiple of the batch's duration …"""
REST_S_MAX = 0.05
"""… but at most this long. It is the whole rest after all but tiny batches: if longer batches were
followed by longer rests, a growing load would let both grow."""
RESTLESS_BATCH_S = 0.25
"""A batch that takes longer is followed by no rest: jobs have collected while it ran."""

K = TypeVar("K", bound=Hashable)


class BatchLimits(Struct, frozen=True, kw_only=True):
    """A single job may exceed all of them."""

    jobs_max: int
    audio_ms_max: int
    """Longest member × members."""
    cost: Cost = Cost()
    streamed_jobs_max: int = 0
    """Partial jobs of a streaming model, which form batches of their own; 0: it is not one."""
    streamed_s: float = 0.0
    """Processing time of one in such a batch."""

    @property
    def usual_jobs(self) -> int:
        """Size of a full batch of utterances of the usual length."""
        fits = range(self.jobs_max, 1, -1)
        return next((jobs for jobs in fits if self.share(jobs, jobs * USUAL_MS) <= 1), 1)

    def share(self, jobs: int, padded_ms: int, *, streamed: bool = False) -> float:
        """How full such a batch is: at 1 it is full, above 1 it exceeds a limit."""
        if streamed:
            return jobs / self.streamed_jobs_max
        return max(
            jobs / self.jobs_max,
            padded_ms / self.audio_ms_max,
            self.cost.expected_s(jobs, padded_ms) / BATCH_S_MAX,
        )


class _Queued(Struct, Generic[K]):
    key: K
    audio_ms: int
    partial: bool
    options: Hashable
    streamed: bool
    passes: int = 0


class BatchQueue(Generic[K]):
    """Queued jobs in order of arrival, identified by key. The caller bounds their number."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._queued: dict[K, _Queued[K]] = {}
        self._audio_ms = 0

    @property
    def fills_a_batch(self) -> bool:
        """Whether the queue holds as much as one batch may, if its jobs can form one batch."""
        return self._limits.share(len(self._queued), self._audio_ms) >= 1

    def __len__(self) -> int:
        return len(self._queued)

    def __contains__(self, key: K) -> bool:
        return key in self._queued

    def add(
        self,
        key: K,
        *,
        audio_ms: int,
        partial: bool,
        options: Hashable = None,
        streamed: bool = False,
    ) -> None:
        """Append a job. The caller adds each key once. Only jobs with equal ``options`` share a
        batch, and ``streamed`` ones, partial jobs of a streaming model, only with each other."""
        assert key not in self._queued, f"{key!r} is queued already"
        self._queued[key] = _Queued(key, audio_ms, partial, options, streamed)
        self._audio_ms += audio_ms

    def remove(self, key: K) -> None:
        self._audio_ms -= self._queued.pop(key).audio_ms

    def limit_jobs(self, jobs_max: int) -> None:
        """The model has turned out to take fewer jobs in a batch."""
        if jobs_max < self._limits.jobs_max:
            self._limits = replace(self._limits, jobs_max=jobs_max)

    def take_batch(self) -> list[K]:
        """Remove the jobs of the next batch and return their keys; empty if the queue is.

        The anchor is the oldest final. A partial is the anchor only if there is no final, or after
        PARTIAL_PASSES_MAX batches of finals passed it over, so that no job starves.
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
        limits, kind = self._limits, (anchor.options, anchor.streamed)
        others = [
            job
            for job in self._queued.values()
            if job is not anchor and (job.options, job.streamed) == kind
        ]
        # Stable: among equally similar jobs the older one comes first.
        others.sort(key=lambda job: (job.partial, abs(job.audio_ms - anchor.audio_ms)))
        batch = [anchor]
        longest_ms = total_ms = anchor.audio_ms
        for job in others:
            jobs, new_longest_ms = len(batch) + 1, max(longest_ms, job.audio_ms)
            padded_ms = new_longest_ms * jobs
            mixed = job.partial and not anchor.partial
            if (
                limits.share(jobs, padded_ms, streamed=anchor.streamed) <= 1
                and not (mixed and limits.cost.expected_s(jobs, padded_ms) > MIXED_BATCH_S_MAX)
                and padded_ms <= PADDED_SHARE_MAX * (total_ms + job.audio_ms)
            ):
                batch.append(job)
                longest_ms = new_longest_ms
                total_ms += job.audio_ms
        return batch


class BatchPacing:
    """Decides when the next batch may start, unless the queue fills a batch already.

    Each batch has a fixed cost: 4.5 ms with the demo model, as much as two utterances of 2 s take.
    Under load, resting after a batch frees processor time for other processes, and the batches
    grow until they are large enough. A single client, which sends its next job after the result of
    the last one, never waits.
    """

    def __init__(self) -> None:
        self._rest_until_s = 0.0
        self._jobs_waited = self._jobs_wait = False
        """Whether jobs waited before the current batch, and whether some wait now."""

    def wait_s(self, now_s: float) -> float:
        """Remaining rest before the next batch; 0 or less if it may start."""
        return self._rest_until_s - now_s

    def batch_started(self) -> None:
        self._jobs_waited, self._jobs_wait = self._jobs_wait, False

    def jobs_wait(self) -> None:
        """Call while a batch runs and jobs are queued.

        Jobs that wait during a rest do not count: one rest would cause the next.
        """
        self._jobs_wait = True

    def batch_ended(self, now_s: float, *, jobs: int, took_s: float) -> None:
        """Rest after a batch of ``jobs``, unless a single client sent it or it took long."""
        alone = jobs < 2 and not self._jobs_waited
        rests = not alone and took_s <= RESTLESS_BATCH_S
        self._rest_until_s = now_s + (min(REST_TIMES_BATCH * took_s, REST_S_MAX) if rests else 0.0)
