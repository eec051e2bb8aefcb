from __future__ import annotations

import asyncio
import time

from tests.tools.lab.loadtest.scripted import Gateway, serving, speech
from tools.lab.loadtest.driver import Driver
from tools.lab.loadtest.user import Behaviour


def behaviour(url: str) -> Behaviour:
    return Behaviour(
        url=url,
        mode="auto",
        binary=True,
        partials=False,
        resume=True,
        speed=50.0,
        patience_s=5.0,
        final_timeout_s=30.0,
    )


async def test_users_begin_at_their_times_and_all_end() -> None:
    made: list[float] = []

    def make():  # type: ignore[no-untyped-def]
        made.append(time.monotonic())
        return speech()

    async with serving(Gateway([speech().text])) as url:
        began_s = time.monotonic()
        driver = Driver(
            [(str(n), 0.1 * n, make) for n in range(5)], behaviour(url), began_s=began_s
        )
        outcomes = await driver.run()
    assert {o.session_id for o in outcomes} == set("01234")
    assert all(at_s - began_s >= 0.1 * n for n, at_s in enumerate(made))
    progress = driver.progress()
    assert progress.ended == {"succeeded": 5} and progress.active == progress.waiting == 0


async def test_a_stopped_run_fails_incomplete_sessions() -> None:
    async with serving(Gateway([], silent=True)) as url:
        driver = Driver(
            [("a", 0.0, speech), ("b", 60.0, speech)], behaviour(url), began_s=time.monotonic()
        )
        running = asyncio.create_task(driver.run())
        while not driver.progress().active:
            await asyncio.sleep(0.01)
        assert driver.progress().waiting == 1
        driver.stop()
        (outcome,) = await running
    assert (outcome.status, outcome.reason) == ("failed", "the run was stopped")
