from __future__ import annotations

import re

import pytest

from gateway.session import events as e
from tests.gateway.session_driver import ENDPOINTER, LIMITS, SessionDriver, silence, speech
from tests.simulation.planted import PLANTED
from tests.simulation.recording import RecordedSession, replay
from tests.simulation.schedule import ScheduleError, simulate


class _Kept(RecordedSession):
    """Keeps the actions too."""

    def __init__(self) -> None:
        super().__init__(LIMITS, ENDPOINTER, resume_token="t", client="c", wall_offset_ms=5)
        self.actions: list[list[e.Action]] = []

    def handle(self, event: e.Event, now_s: float) -> list[e.Action]:
        outermost = not self._depth
        actions = super().handle(event, now_s)
        if outermost:
            self.actions.append(list(actions))
        return actions


def test_a_replay_has_the_same_actions() -> None:
    driver, session = SessionDriver(), _Kept()
    driver.session = session
    driver.start(partials=True)
    driver.chunk(speech(900), 0)
    driver.feed(e.Disconnected())
    driver.tick(3.0)
    driver.feed(e.Attached(next_segment_index=None))
    driver.failing = {1}
    driver.chunk(b"noise", 1)
    driver.chunk(silence(1000))
    for job in list(driver.jobs):
        driver.recognise(job, "eins")
    driver.finish()
    driver.store_all()
    assert driver.session.over
    assert len(session.recorded) > 12
    assert replay(session.recording()) == session.actions


def test_a_failing_schedule_shows_events_that_can_be_replayed() -> None:
    with pytest.raises(ScheduleError) as failure:
        for seed in range(100):
            simulate(seed, PLANTED["result_delivered_twice"].plant)
    found = re.search(r"^\[\n    Session\(.*?^\]$", str(failure.value), re.DOTALL | re.MULTILINE)
    assert found
    actions = replay(found[0])
    assert isinstance(actions[0][-1], e.Started | e.Resumed)
