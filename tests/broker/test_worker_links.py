"""The links to workers on other hosts, by a broker whose messages take simulated time."""

from __future__ import annotations

import heapq

import pytest

from broker import events as e
from runtime.link_rate import TRIAL_INTERVAL_S
from tests.broker.driving import OTHER_WORKER, WORKER, Driver, job
from wire import messages as m

NARROW = 240_000.0
WIDE = 100e6
THIRD_WORKER = b"worker-3"
WORKERS = (WORKER, OTHER_WORKER, THIRD_WORKER)
TICK_S = 0.05


class Hosts:
    """Workers on other hosts. ``bytes_per_s``: of the broker's own link, and ``links`` of those of
    single workers."""

    def __init__(
        self, bytes_per_s: float, links: dict[bytes, float] | None = None, workers: int = 3
    ) -> None:
        self.driver = Driver()
        self.driver.hello()
        self._bytes_per_s, self._links = bytes_per_s, links or {}
        self._free_s = 0.0
        self._worker_free_s: dict[bytes, float] = {}
        self._arrivals: list[tuple[float, int, bytes]] = []
        self.tried: list[bytes] = []
        for worker in WORKERS[:workers]:
            self._carry(self.driver.ready(worker, answers_marks=True))

    def _carry(self, actions: list[e.Action]) -> None:
        for action in actions:
            if not isinstance(action, e.Send) or not isinstance(action.message, m.Mark):
                continue
            size, worker = len(action.message.padding), action.identity
            if size:
                self.tried.append(worker)
            self._free_s = max(self._free_s, self.driver.now_s) + size / self._bytes_per_s
            at_s = max(self._free_s, self._worker_free_s.get(worker, 0.0))
            at_s += size / self._links.get(worker, WIDE)
            self._worker_free_s[worker] = at_s
            heapq.heappush(self._arrivals, (at_s + 0.0005, action.message.number, worker))

    def run(self, seconds: float) -> None:
        driver = self.driver
        for _ in range(round(seconds / TICK_S)):
            tick_s = driver.now_s + TICK_S
            while self._arrivals and self._arrivals[0][0] <= tick_s:
                driver.now_s, number, worker = heapq.heappop(self._arrivals)
                driver.back(m.MarkArrived(number=number), worker)
            driver.now_s = tick_s
            driver.hello()
            self._carry(driver.handle(e.Tick()))
            for worker in WORKERS:
                driver.beat(worker)

    @property
    def capacity(self) -> float:
        """0: unknown."""
        return self.driver.broker.load().workers_link_rate


@pytest.mark.parametrize("workers", [1, 3])
def test_a_narrow_link_of_the_broker_is_known_before_the_first_job(workers: int) -> None:
    hosts = Hosts(NARROW, workers=workers)
    hosts.run(6.0)
    for _ in range(4):
        assert 0.8 * NARROW < hosts.capacity < 1.03 * NARROW
        hosts.run(TRIAL_INTERVAL_S)
    assert hosts.driver.broker.load().workers_sent_rate == 0.0, "trials are no use"


def test_one_narrow_link_among_wide_ones_is_not_that_of_the_broker() -> None:
    hosts = Hosts(WIDE, {OTHER_WORKER: NARROW})
    for _ in range(12):
        hosts.run(TRIAL_INTERVAL_S)
        assert hosts.capacity == 0.0


def test_wide_links_are_tried_in_turn() -> None:
    hosts = Hosts(WIDE)
    hosts.run(6 * TRIAL_INTERVAL_S)
    assert hosts.capacity == 0.0
    assert 6 <= len(hosts.tried) <= 7
    assert set(hosts.tried) == set(WORKERS) and hosts.tried[:3] == hosts.tried[3:6]


def test_a_worker_that_does_not_answer_marks_gets_none() -> None:
    """It is on the broker's host, or of an earlier release."""
    driver = Driver()
    driver.hello()
    actions = driver.ready()
    for _ in range(400):
        driver.now_s += TICK_S
        actions += driver.handle(e.Tick()) + driver.beat()
    assert not [a for a in actions if isinstance(a, e.Send) and isinstance(a.message, m.Mark)]


def test_marks_that_are_lost_with_a_connection_or_a_job_do_not_end_the_trials() -> None:
    hosts = Hosts(WIDE)
    hosts._arrivals.clear()  # Every first mark is lost.
    hosts.run(2 * TRIAL_INTERVAL_S)
    assert hosts.tried == []
    driver = hosts.driver
    for worker in WORKERS:
        ready = m.Ready(
            worker_id=worker.decode(),
            credits=4,
            model="demo",
            device="cpu",
            broker_epoch="epoch",
            answers_marks=True,
        )
        hosts._carry(driver.back(ready, worker))
    assert _workers_of(driver.front(job())) == [WORKER]
    driver.handle(e.Unsent(e.Send("back", THIRD_WORKER, m.Mark(number=99))))
    assert _workers_of(driver.bye((1, 1))) == [OTHER_WORKER]
    driver.answer(1, OTHER_WORKER, held_ms=5)
    assert [answered.outcome for answered in driver.answered] == ["text"]
    hosts.run(2 * TRIAL_INTERVAL_S)
    assert set(hosts.tried) == {OTHER_WORKER}


def _workers_of(actions: list[e.Action]) -> list[bytes]:
    sends = [action for action in actions if isinstance(action, e.Send)]
    return [send.identity for send in sends if isinstance(send.message, m.WorkerJob)]


def test_no_trial_delays_jobs_in_transit() -> None:
    hosts = Hosts(WIDE, workers=1)
    hosts.run(1.0)
    hosts.driver.front(job())
    tried = len(hosts.tried)
    hosts.run(2 * TRIAL_INTERVAL_S)
    assert len(hosts.tried) == tried
    hosts.driver.answer(1, held_ms=5)
    hosts.run(2 * TICK_S)
    assert len(hosts.tried) == tried + 1


def test_an_answer_renews_no_lease_and_one_that_comes_late_does_not_count() -> None:
    driver = Driver()
    driver.hello()
    (first,) = driver.ready(answers_marks=True)
    assert isinstance(first, e.Send) and isinstance(first.message, m.Mark)
    assert first.message.padding == b""
    driver.broker.is_late = True
    assert driver.back(m.MarkArrived(number=first.message.number)) == []
    driver.broker.is_late = False
    for _ in range(400):
        driver.now_s += TICK_S
        driver.hello()
        driver.handle(e.Tick())
        if driver.ended:
            break
        driver.back(m.MarkArrived(number=1))
    assert [ended.identity for ended in driver.ended][-1:] == [WORKER]
    assert driver.back(m.MarkArrived(number=1)) == [e.Count("unknown_worker")]
