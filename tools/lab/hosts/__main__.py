"""``python -m tools.lab.hosts``: a system on hosts of its own, whose links fail under load.

Every session gets its text, every row is stored once, and neither can be read on the links of the
broker.

Exit codes: 0 every row holds; 1 one does not; 2 wrong usage; 3 this machine has no namespaces.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console

from tools.lab.chaos import oracle, report
from tools.lab.chaos.rows import Row
from tools.lab.harness import database
from tools.lab.harness.process import ROOT
from tools.lab.hosts.network import OWN_NETWORK, Network, why_impossible
from tools.lab.hosts.system import BROKERS, GATEWAYS, System
from tools.lab.loadtest.load import CHUNK_MS, Load, longest_pause_s, slowest_ms
from tools.lab.loadtest.speech import DigitSpeech
from tools.lab.loadtest.user import Outcome

SESSIONS: Final = 50
QUICK_SESSIONS: Final = 20
RAMP_S: Final = 2.0
BEFORE_S: Final = 4.0
"""From the first session to the first fault."""
AFTER_S: Final = 4.0
"""From the end of the last fault to the end of speech."""
SHORT_CUT_S: Final = 1.5
BETWEEN_S: Final = 0.8
LONG_CUTS_S: Final = (4.0, 10.0)
TRAFFIC_S: Final = 52.0
DELAY_S: Final = 0.1
LOSS: Final = 0.01
DELAYED_S: Final = 15.0
NARROW_MBIT_PER_S: Final = 2.0
SPEAKERS_MAX: Final = 7
"""As many speak at once on the narrow link: 256 kbit/s each."""
NARROW_RAMP_S: Final = 40.0
NARROW_SPEECH_S: Final = 30.0
KNOWN_S: Final = 15.0
"""From the change of a link to the first session: a gateway tries it every ten seconds."""
END_S_MAX: Final = 150.0
REST_S_MAX: Final = 30.0
NO_NAMESPACES: Final = 3
INSIDE: Final = "ASR_LAB_OWN_NETWORK"
TEXT_PART_BYTES: Final = 12
PCM_PART_BYTES: Final = 64
SEARCHED_BYTES: Final = 1 << 24
"""Bytes of the capture that are searched at once."""
LOUD: Final = 3_000
"""Largest sample of a part that is searched for: silence is everywhere."""

console = Console(stderr=True, highlight=False)

Quick = Annotated[
    bool, typer.Option("--quick", help="Cut each host once, briefly, under one load: a minute.")
]
WithoutKeys = Annotated[
    bool, typer.Option("--without-keys", help="No keys on the bus: the capture must then fail.")
]
Traffic = Annotated[
    bool, typer.Option("--traffic", help="No faults: count what each host sends and receives.")
]
Narrow = Annotated[bool, typer.Option("--narrow", help="Only the links that are too narrow.")]
Brokers = Annotated[int, typer.Option(help="Number of brokers.", min=1, max=len(BROKERS))]
Out = Annotated[Path, typer.Option(help="Directory for the report.")]
Keep = Annotated[bool, typer.Option("--keep", help="Keep the directory with the logs.")]


def main(
    quick: Quick = False,
    traffic: Traffic = False,
    narrow: Narrow = False,
    without_keys: WithoutKeys = False,
    brokers: Brokers = 1,
    out: Out = Path("bench-results/hosts"),
    keep: Keep = False,
) -> None:
    """Cut, delay and narrow the links of hosts, and check every word of every session."""
    if INSIDE not in os.environ:
        _in_a_network_of_its_own()
    directory = Path(tempfile.mkdtemp(prefix="asr-hosts-"))
    try:
        with System(directory, Network(), with_keys=not without_keys, brokers=brokers) as system:
            rows = Rows(system, QUICK_SESSIONS if quick else SESSIONS)
            (_traffic if traffic else _quick if quick else _narrow if narrow else _full)(rows)
            rows.search_capture()
    finally:
        if keep:
            console.print(f"logs: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    command = "python -m tools.lab.hosts " + shlex.join(sys.argv[1:])
    console.print(f"report: {report.write(out, rows.done, command.strip())}")
    raise typer.Exit(0 if all(row.holds for row in rows.done) else 1)


def _in_a_network_of_its_own() -> None:
    if reason := why_impossible():
        console.print(reason, markup=False)
        raise typer.Exit(NO_NAMESPACES)
    command = [*OWN_NETWORK, sys.executable, "-m", "tools.lab.hosts", *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, INSIDE: "1"})


def _quick(rows: Rows) -> None:
    names = list(rows.system.hosts)
    step_s = SHORT_CUT_S + BETWEEN_S

    def cut_all() -> None:
        for name in names:
            rows.cut(name, SHORT_CUT_S)
            time.sleep(BETWEEN_S)

    rows.run(f"each host cut {SHORT_CUT_S:g} s", cut_all, len(names) * step_s)


def _traffic(rows: Rows) -> None:
    before = {name: host.traffic() for name, host in rows.system.hosts.items()}
    rows.run("no fault", lambda: time.sleep(TRAFFIC_S), TRAFFIC_S)
    audio_s = rows.sessions * (BEFORE_S + TRAFFIC_S + AFTER_S)
    for name, host in rows.system.hosts.items():
        sent, received = (
            now - then for now, then in zip(host.traffic(), before[name], strict=True)
        )
        rates = f"{sent / audio_s / 1000:.2f} kB out, {received / audio_s / 1000:.2f} kB in"
        console.print(f"  {name}: {rates} for a second of audio")
    with database.connect(rows.system.database_url) as connection:
        for table in ("asr_sessions", "asr_segments", "asr_chunks"):
            query = f"SELECT count(*), pg_total_relation_size('{table}') FROM {table}"
            (found,) = connection.execute(query)
            console.print(f"  {table}: {found[0]} rows, {found[1]} bytes with their indexes")


def _full(rows: Rows) -> None:
    for name, cut_s in itertools.product(rows.system.hosts, LONG_CUTS_S):
        rows.run(f"{name} cut {cut_s:g} s", partial(rows.cut, name, cut_s), cut_s)
    rows.run(
        f"broker {DELAY_S * 1000:g} ms away, {LOSS:.0%} lost",
        lambda: rows.delay(DELAYED_S),
        DELAYED_S,
    )
    if len(rows.system.brokers) == 1:  # Else the other one carries half of the sessions.
        _narrow(rows)


def _narrow(rows: Rows) -> None:
    for name in (GATEWAYS[0], BROKERS[0]):
        rows.run_narrow(name, NARROW_RAMP_S)
    rows.run_narrow(GATEWAYS[0], 0.0)


class Rows:
    """Runs rows on one system, and checks them."""

    def __init__(self, system: System, sessions: int) -> None:
        self.system = system
        self.sessions = sessions
        """Of each row."""
        self.done: list[Row] = []
        self._seeds: list[tuple[int, int, float]] = []
        """Seed, sessions and duration of each load."""

    # --------------------------------------------------------------------------------- the faults

    def cut(self, name: str, cut_s: float) -> None:
        host = self.system.hosts[name]
        host.cut()
        time.sleep(cut_s)
        host.heal()

    def delay(self, lasting_s: float) -> None:
        for cable in self.system.cables:
            cable.delay_s, cable.loss = DELAY_S, LOSS
        time.sleep(lasting_s)
        for cable in self.system.cables:
            cable.delay_s = cable.loss = 0.0

    # ----------------------------------------------------------------------------------- the rows

    def run(self, name: str, fault: Callable[[], None], lasting_s: float) -> None:
        """A fault of ``lasting_s`` beside sessions at both gateways."""
        console.print(f"[dim]{name}[/]")
        self.system.wait_all_ready()
        duration_s = BEFORE_S + lasting_s + AFTER_S
        loads = [
            self._load(gateway, self.sessions // 2, duration_s, RAMP_S) for gateway in GATEWAYS
        ]
        time.sleep(BEFORE_S)
        injected_s = time.monotonic() - loads[0].began_s
        fault()
        outcomes = [outcome for load in loads for outcome in load.wait(END_S_MAX)]
        row = Row(name, "mid-job", self.sessions)
        until_s = injected_s + lasting_s + AFTER_S
        row.pause_s = longest_pause_s(outcomes, injected_s, until_s)
        row.slowest_ms = slowest_ms(outcomes, injected_s, until_s)
        self._judge(row, outcomes)

    def run_narrow(self, narrowed: str, ramp_s: float) -> None:
        """A host sends less than sessions at one gateway speak: they are admitted as far as its
        link carries them."""
        name = f"{narrowed} sends {NARROW_MBIT_PER_S:g} Mbit/s, all come in {ramp_s:g} s"
        console.print(f"[dim]{name}[/]")
        self.system.wait_all_ready()
        host = self.system.hosts[narrowed]
        host.narrow(NARROW_MBIT_PER_S)
        time.sleep(KNOWN_S)
        try:
            load = self._load(GATEWAYS[0], self.sessions, NARROW_SPEECH_S, ramp_s)
            outcomes = load.wait(END_S_MAX * 3)
        finally:
            host.widen()
        admitted = [outcome for outcome in outcomes if outcome.status != "refused"]
        row = Row(name, "mid-job", len(admitted))
        row.slowest_ms = slowest_ms(outcomes, 0.0, END_S_MAX)
        speakers = most_at_once(outcomes)
        console.print(f"  at most {speakers} speakers at once, {refusals(outcomes)} refusals")
        console.print(f"  measured at the end: {self._measured()}")
        if speakers > SPEAKERS_MAX:
            row.problems.append(f"{speakers} speakers at once, {SPEAKERS_MAX} can be carried")
        self._judge(row, admitted)

    def _measured(self) -> str:
        gateway = self.system.metrics_of(GATEWAYS[0])
        front = gateway.total("asr_gateway_link_bytes_per_second")
        back = self.system.metrics_of(BROKERS[0]).total("asr_broker_link_bytes_per_second")
        full = gateway.total("asr_gateway_link_utilisation")
        return f"{front / 1000:.0f} kB/s to the broker, {back / 1000:.0f} to workers, {full:.0%}"

    def search_capture(self) -> None:
        """Check that no audio and no text is readable in the captured frames."""
        row = Row("capture of the bus", "mid-job", 0)
        captured = self.system.captured()
        parts = [part for load in self._seeds for part in parts_said(*load)]
        found = len(found_in(captured, parts))
        console.print(f"  {len(captured) >> 20} MiB captured, {found} of {len(parts)} parts found")
        if found or not captured or not parts:
            row.problems.append(f"{found} of {len(parts)} parts in {len(captured)} bytes")
        self.done.append(row)

    def _load(self, gateway: str, sessions: int, duration_s: float, ramp_s: float) -> Load:
        seed = 1 + len(self._seeds)
        self._seeds.append((seed, sessions, duration_s))
        return Load(
            self.system.url(gateway),
            sessions=sessions,
            duration_s=duration_s,
            ramp_s=ramp_s,
            seed=seed,
        )

    def _judge(self, row: Row, outcomes: list[Outcome]) -> None:
        ended_s = time.monotonic()
        deadline_s = ended_s + REST_S_MAX
        while left := oracle.left_over(self.system.queue(), self.system.gauges()):
            if time.monotonic() > deadline_s:
                row.problems += left
                break
            time.sleep(0.2)
        row.settled_s = time.monotonic() - ended_s
        ids = [outcome.session_id for outcome in outcomes]
        stored = database.stored_sessions(self.system.database_url, ids)
        row.problems += oracle.texts_wrong(outcomes, row.sessions)
        row.problems += oracle.rows_wrong(outcomes, stored)
        row.resumes = sum(outcome.resumes for outcome in outcomes)
        row.stored = sum(outcome.stored for outcome in outcomes)
        self.done.append(row)
        verdict = f"silence {row.pause_s:.1f} s, slowest text {row.slowest_ms:.0f} ms"
        console.print(f"  {'holds' if row.holds else 'FAILS'}: {verdict}, {row.resumes} resumed")
        for problem in row.problems[: report.PROBLEMS_SHOWN_MAX]:
            console.print(f"  {problem}", style="red", markup=False, soft_wrap=True)


def most_at_once(outcomes: Sequence[Outcome]) -> int:
    """The largest number of sessions that were admitted and had not ended."""
    changes = [(o.came_in_s, 1) for o in outcomes if o.came_in_s is not None]
    changes += [(o.ended_s, -1) for o in outcomes if o.came_in_s is not None]
    return max(itertools.accumulate(change for _, change in sorted(changes)), default=0)


def refusals(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.refusals for outcome in outcomes)


def found_in(captured: bytes, parts: Collection[bytes]) -> set[bytes]:
    """Return the members of ``parts`` that occur in ``captured``. Each has at least three bytes.

    One pass finds the places where any of them may begin. A search for each would read the whole
    capture thousands of times.
    """
    by_beginning: defaultdict[int, list[bytes]] = defaultdict(list)
    for part in parts:
        by_beginning[int.from_bytes(part[:3], "little")].append(part)
    begins_a_part = np.zeros(1 << 24, bool)
    begins_a_part[list(by_beginning)] = True
    found: set[bytes] = set()
    for at in range(0, len(captured), SEARCHED_BYTES):
        searched = np.frombuffer(captured[at : at + SEARCHED_BYTES + 2], np.uint8)
        first, second, third = searched[:-2], searched[1:-1], searched[2:]
        beginnings = first | second.astype(np.uint32) << 8 | third.astype(np.uint32) << 16
        for index in np.flatnonzero(begins_a_part[beginnings]).tolist():
            begun = by_beginning[int(beginnings[index])]
            found.update(part for part in begun if captured.startswith(part, at + index))
    return found


def parts_said(seed: int, sessions: int, duration_s: float) -> list[bytes]:
    """Parts of the audio and of the texts of a ``Load`` with these arguments."""
    parts = []
    for number in range(sessions):
        speech = DigitSpeech(seed * 10_007 + number, round(duration_s * 1000), CHUNK_MS)
        parts.append(speech.text.encode()[:TEXT_PART_BYTES])
        for index in range(speech.chunk_count):
            part = speech.chunk(index)[:PCM_PART_BYTES]
            if max(memoryview(part).cast("h")) > LOUD:
                parts.append(part)
    return parts


if __name__ == "__main__":
    os.chdir(ROOT)
    typer.run(main)
