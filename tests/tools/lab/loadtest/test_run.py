"""Generator processes against a scripted gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.tools.lab.loadtest.scripted import Gateway, serving
from tools.lab.loadtest.driver import Progress
from tools.lab.loadtest.plan import Plan
from tools.lab.loadtest.run import Overview, run
from tools.lab.loadtest.samples import Samples
from tools.lab.loadtest.user import Behaviour


def test_the_progress_of_all_processes_is_summed() -> None:
    part = Progress(waiting=1, active=2, ended={"succeeded": 3}, recent_segment_ms=[5.0])
    total = Overview({0: part, 1: part}).total()
    assert (total.waiting, total.active, total.ended) == (2, 4, {"succeeded": 6})
    assert total.recent_segment_ms == [5.0, 5.0]


async def test_every_session_of_every_process_has_an_outcome(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes((Path("tools/samples") / "digits_en.wav").read_bytes())
    (tmp_path / "a.txt").write_text("one")
    shown: list[float] = []
    async with serving(Gateway(["one"])) as url:
        behaviour = Behaviour(
            url=url,
            mode="auto",
            binary=True,
            partials=False,
            resume=True,
            speed=50.0,
            patience_s=10.0,
            final_timeout_s=10.0,
        )
        plan = Plan(behaviour, 4, 1.0, 200, 0.0, 0.0, 1, files=tmp_path)
        samples = Samples("http://127.0.0.1:9", list)
        results = await asyncio.to_thread(
            run, plan, 2, samples, lambda at_s, _progress, _samples: shown.append(at_s)
        )
    assert [outcome.status for outcome in results.outcomes] == ["succeeded"] * 4
    assert len(samples.taken) == len(shown) >= 2 and results.generator_cpu_s > 0
