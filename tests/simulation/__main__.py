"""Replay one seed, or look for failing ones:

python -m tests.simulation --seed 17 --trace
python -m tests.simulation --seeds 0:100000
python -m tests.simulation --without-gateways --seeds 0:100000
"""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Callable

from tests.simulation.planted import PLANTED, Planted
from tests.simulation.schedule import Outcome, ScheduleError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    seeds = parser.add_mutually_exclusive_group(required=True)
    seeds.add_argument("--seed", type=int, help="run one schedule")
    seeds.add_argument("--seeds", type=_range, metavar="FIRST:END", help="run many, without END")
    parser.add_argument(
        "--without-gateways",
        action="store_true",
        help="replace gateways and clients by gateways that only send jobs",
    )
    parser.add_argument("--trace", action="store_true", help="print each event")
    parser.add_argument("--bug", choices=sorted(PLANTED), help="plant a bug")
    arguments = parser.parse_args()
    planted = Planted(contextlib.nullcontext, not arguments.without_gateways)
    if arguments.bug is not None:
        planted = PLANTED[arguments.bug]
    return _run_all(
        arguments.seeds or range(arguments.seed, arguments.seed + 1),
        lambda seed: planted.simulate(seed, echo=arguments.trace),
    )


def _range(text: str) -> range:
    first, end = text.split(":")
    return range(int(first), int(end))


def _run_all(seeds: range, run: Callable[[int], Outcome]) -> int:
    """Goes on after a failure: more failing seeds tell more about its cause."""
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
