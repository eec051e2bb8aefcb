"""Where one file ends and the next begins: whether an utterance goes on over the file boundary."""

from __future__ import annotations

from gateway.session import events as e
from tests.gateway.session_driver import SessionDriver, silence, speech


def test_mode_stream_knows_no_file_boundaries() -> None:
    driver = SessionDriver()
    driver.container_ends = {0, 1}
    driver.start("stream")
    driver.chunk(speech(500) + silence(200))
    driver.chunk(speech(500))
    assert driver.jobs == []


def test_a_file_cut_inside_a_word_waits_for_the_next_only_so_long() -> None:
    driver = SessionDriver(file_boundary_wait_extra_s=0.5)
    driver.container_ends = {0}
    driver.start()
    driver.chunk(speech(2000))
    driver.tick(2.4)
    assert driver.jobs == []
    driver.tick(2.5)
    assert [j.pcm for j in driver.jobs] == [speech(2000)]
    driver.chunk(speech(300))
    driver.finish()
    assert [j.pcm for j in driver.jobs[1:]] == [speech(300)]


def test_it_waits_for_a_client_that_is_away() -> None:
    driver = SessionDriver(file_boundary_wait_extra_s=0.5)
    driver.container_ends = {0, 1}
    driver.start()
    driver.chunk(speech(2000))
    driver.tick(2.0)
    driver.feed(e.Disconnected())
    for now_s in (2.2, 5.0, 20.0):
        driver.tick(now_s)
    driver.feed(e.Attached(next_segment_index=None))
    driver.tick(22.4)
    assert driver.jobs == []
    driver.chunk(speech(300) + silence(1000))
    (job,) = driver.jobs
    assert speech(2300) in job.pcm


def test_a_container_seen_to_have_ended_only_at_the_next_chunk() -> None:
    driver = SessionDriver()
    driver.container_starts = {1}
    driver.start()
    driver.chunk(speech(500) + silence(250))
    assert driver.jobs == []
    driver.chunk(speech(400) + silence(1000))
    first, second = driver.jobs
    assert speech(500) in first.pcm and first.end_ms < 750
    assert speech(400) in second.pcm and second.start_ms < 750
