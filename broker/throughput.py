"""Core: the speed of a worker: the cost that it measured at start, corrected by its results."""

from __future__ import annotations

from broker import limits as limit
from wire.messages import Cost, Ready
from wire.validation import RATIO_MAX


class Throughput:
    """A batch takes its cost times the worker's *slowness*: time taken over time expected, of
    results, with exponential decay over busy time. The cost depends on the size of a batch, so
    small batches at low load do not make a worker seem slow. A worker without results does not get
    slower: its lease and its deadlines cover that case.
    """

    def __init__(self, ready: Ready) -> None:
        cost, most_s = ready.cost, limit.COST_S_MAX
        slowest = 1 / limit.THROUGHPUT_MIN_RTFX
        if cost == Cost():
            rtfx = ready.throughput_rtfx or limit.THROUGHPUT_INITIAL_RTFX
            cost = Cost(second_s=1 / max(rtfx, limit.THROUGHPUT_MIN_RTFX))
        self._cost = Cost(
            batch_s=min(cost.batch_s, most_s),
            utterance_s=min(cost.utterance_s, most_s),
            second_s=min(cost.second_s, slowest),
        )
        self._batch_jobs = max(1, ready.abilities.batch_jobs)
        self._busy_s = self._expected_s = limit.THROUGHPUT_INITIAL_WEIGHT_S

    @property
    def slowness(self) -> float:
        return self._busy_s / self._expected_s

    def add(self, audio_ms: int, batch_jobs: int, busy_s: float) -> None:
        """A job of a batch of ``batch_jobs`` is answered, ``busy_s`` after the one before."""
        keep = 0.5 ** (busy_s / limit.THROUGHPUT_HALF_LIFE_S)
        expected_s = self._expected_s * keep + self._share_s(1, audio_ms, batch_jobs)
        self._busy_s = self._busy_s * keep + busy_s
        self._expected_s = max(expected_s, limit.THROUGHPUT_EXPECTED_S_MIN)

    def work_s(self, jobs: int, audio_ms: int) -> float:
        """Processing time of ``jobs`` with ``audio_ms`` in total, in batches of the best size."""
        return self._share_s(jobs, audio_ms, self._batch_jobs) * self.slowness

    def alone_s(self, audio_ms: int) -> float:
        """Processing time of one job in a batch of its own."""
        return self._cost.expected_s(1, audio_ms) * self.slowness

    def rtfx(self, utterance_ms: float) -> float:
        """Seconds of audio per second, with utterances of this average length."""
        work_s = self.work_s(1, round(utterance_ms))
        most = utterance_ms / 1000 / max(work_s, limit.THROUGHPUT_EXPECTED_S_MIN)
        return min(max(most, limit.THROUGHPUT_MIN_RTFX), RATIO_MAX)

    def _share_s(self, jobs: int, audio_ms: int, batch_jobs: int) -> float:
        """Cost of ``jobs`` as a share of batches of ``batch_jobs``."""
        share = 1 / max(1, batch_jobs)
        audio_s = audio_ms / 1000 * (1 + limit.BATCH_PADDING * (1 - share))
        cost = self._cost
        return (cost.batch_s * share + cost.utterance_s) * jobs + cost.second_s * audio_s
