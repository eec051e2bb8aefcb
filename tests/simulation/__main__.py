"""Replay one seed, or look for a failing one:

python -m tests.simulation --seed 17 --trace
python -m tests.simulation --seeds 0 100000
"""

from __future__ import annotations

import argparse
from collections import Counter

from tests.simulation.planted import PLANTED
from tests.simulation.schedule import ScheduleError, no_bug, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="one schedule")
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("FIRST", "END"), help="many")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--bug", choices=sorted(PLANTED), help="with this bug planted")
    arguments = parser.parse_args()
    if arguments.seed is None and arguments.seeds is None:
        parser.error("--seed or --seeds is needed")
    first, end = arguments.seeds or (arguments.seed, arguments.seed + 1)
    plant = PLANTED[arguments.bug] if arguments.bug else no_bug
    counts: Counter[str] = Counter()
    events = 0
    for seed in range(first, end):
        try:
            outcome = simulate(seed, plant, echo=arguments.trace)
        except ScheduleError as failure:
            print(failure)
            return 1
        events += outcome.events
        counts += outcome.counts + Counter(texts=outcome.texts, failures=outcome.failures)
    print(f"{end - first} schedules hold, {events} events, {dict(sorted(counts.items()))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
