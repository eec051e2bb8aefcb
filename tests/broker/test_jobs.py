"""Jobs of sessions that another gateway has taken over, as the routing core treats them."""

from __future__ import annotations

from msgspec.structs import replace

from broker import events as e
from tests.broker.driving import GATEWAY, OTHER_GATEWAY, Driver, job
from wire import messages as m


def test_a_newer_generation_replaces_the_job_and_an_older_is_refused() -> None:
    driver = Driver()
    old = job()
    new = replace(old, generation=1, pcm=b"\1\0" * 100)
    driver.front(old, GATEWAY)
    assert e.Count("superseded_generation") in driver.front(new, OTHER_GATEWAY)
    assert e.Count("stale_generation") in driver.front(old, GATEWAY)
    (entry,) = driver.broker.scheduler.jobs
    assert (entry.gateway, entry.job.pcm) == (OTHER_GATEWAY, new.pcm)


def test_a_partial_of_an_older_generation_is_late() -> None:
    driver = Driver()
    driver.front(replace(job(partial=True, seq=0), generation=1), OTHER_GATEWAY)
    assert e.Count("partial_late") in driver.front(job(partial=True, seq=3), GATEWAY)


def test_a_claim_is_told_to_every_other_gateway() -> None:
    driver = Driver()
    for gateway in (GATEWAY, OTHER_GATEWAY):
        driver.front(m.Hello(gateway_id=gateway.decode(), expected_audio_rate=0.0), gateway)
    claim = m.Claim(session_id="session", generation=2, resume_token_hash="h")
    claimed = m.Claimed(session_id="session", generation=2, resume_token_hash="h")
    assert driver.front(claim, GATEWAY) == [e.SendFront(OTHER_GATEWAY, claimed)]
