"""Replay one seed, or look for failing ones:

python -m tests.simulation --seed 17 --trace
python -m tests.simulation --seeds 0:100000
python -m tests.simulation --routing --seeds 0:100000
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

from tests.simulation.planted import PLANTED
from tests.simulation.planted_sessions import SESSION_PLANTS
from tests.simulation.schedule import Outcome, ScheduleError, simulate
from tests.simulation.sessions import simulate_sessions


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    seeds = parser.add_mutually_exclusive_group(required=True)
    seeds.add_argument("--seed", type=int, help="one schedule")
    seeds.add_argument("--seeds", type=_range, metavar="FIRST:END", help="many, END not included")
    parser.add_argument("--routing", action="store_true", help="the broker's core alone")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--bug", choices=sorted({**PLANTED, **SESSION_PLANTS}), help="planted")
    arguments = parser.parse_args()
    routing = arguments.routing or arguments.bug in PLANTED
    run = _routing(arguments.bug) if routing else _sessions(arguments.bug)
    chosen = arguments.seeds or range(arguments.seed, arguments.seed + 1)
    return _run_all(chosen, lambda seed: run(seed, arguments.trace))


def _range(text: str) -> range:
    first, end = text.split(":")
    return range(int(first), int(end))


def _routing(bug: str | None) -> Callable[[int, bool], Outcome]:
    if bug is None:
        return lambda seed, trace: simulate(seed, echo=trace)
    return lambda seed, trace: simulate(seed, PLANTED[bug], echo=trace)


def _sessions(bug: str | None) -> Callable[[int, bool], Outcome]:
    if bug is None:
        return lambda seed, trace: simulate_sessions(seed, echo=trace)
    return lambda seed, trace: simulate_sessions(seed, SESSION_PLANTS[bug], echo=trace)


def _run_all(seeds: range, run: Callable[[int], Outcome]) -> int:
    """Goes on behind a failure: one seed is seldom the whole story."""
    counts: Counter[str] = Counter()
    events = failed = 0
    for seed in seeds:
        try:
            outcome = run(seed)
        except ScheduleError as failure:
            print(failure, flush=True)
            failed += 1
            continue
        events += outcome.events
        counts += outcome.counts + Counter(texts=outcome.texts, failures=outcome.failures)
    held = len(seeds) - failed
    print(
        f"{held} schedules hold, {failed} do not, {events} events, {dict(sorted(counts.items()))}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
