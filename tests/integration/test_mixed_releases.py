"""Each process of the first release that tolerates others works with today's, under load.

``tests/releases/first_tolerant`` names the commit, by its id and subject, from which on unknown
fields are ignored, missing fields take their defaults, and later additive migrations are accepted.
``tests/wire`` adds and removes fields of every message and record.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from asyncio import Task
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from gateway.session.transcript import join_texts
from tests.conftest import EmbeddedServices
from tests.integration.resuming_client import ResumingClient
from tests.integration.speech import Spoken, chunks_of, spoken
from tools.lab.chaos import oracle
from tools.lab.harness import database
from tools.lab.harness.ports import free_port, free_range
from tools.lab.harness.process import ROOT, LoggedProcess
from tools.lab.harness.stack import Stack, running_stack, wait_until
from tools.lab.loadtest.load import Load

COMMIT, _, SUBJECT = (ROOT / "tests/releases/first_tolerant").read_text().strip().partition(" ")
GATEWAYS = ["gateway", "gateway2"]
SESSIONS = 8
ARRIVING = 25
ARRIVING_IN_S = 10.0
SPEAKING_S = 40.0
"""Sessions while the gateways are upgraded, and as many while the other processes are. All speak at
the same time but for the first seconds."""
UPGRADE_ORDER = {
    "persistence": "database_available",
    "broker": "broker_ready",
    "asr_worker": "worker_ready",
    "asr_worker2": "worker_ready",
    "gateway": "serving",
    "gateway2": "serving",
}
"""Processes, each with the log event by which it works."""
START_S_MAX = 300.0
CHUNK_MS = 200
CHUNK_EVERY_S = 0.03
RESUME_S_MAX = 60.0
REFUSALS = {
    "asr_broker_incidents_total": (
        *("front_malformed", "back_malformed", "front_unexpected", "back_unexpected"),
        *("version_refused", "bad_ready"),
    ),
    "asr_gateway_bus_messages_dropped_total": (
        *("not_a_message", "unexpected_kind", "version_refused"),
    ),
    "asr_worker_frames_rejected_total": ("malformed", "not_for_workers", "version_refused"),
    "asr_persistence_publications_discarded_total": ("bad_message", "bad_session_id"),
}
"""Counters, and their reasons, that show one release not understanding another."""


def git(*arguments: str) -> bytes:
    """The output of a git command; empty if it fails."""
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    return run.stdout


@pytest.fixture(scope="module")
def first_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of ``COMMIT``, or, if history was rewritten, of the commit with its subject."""
    found = git("rev-parse", "--verify", "--quiet", f"{COMMIT}^{{commit}}")
    found = found or git("log", "-1", "--format=%H", "--fixed-strings", f"--grep={SUBJECT}")
    if not found and git("rev-parse", "--is-shallow-repository").strip() == b"true":
        pytest.skip(f"a shallow clone has no commit {COMMIT[:7]}")
    assert found, f"no commit {COMMIT[:7]}, nor one with the subject {SUBJECT!r}"
    archive = git("archive", found.decode().strip())
    tree = tmp_path_factory.mktemp("first_release")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    return tree


@pytest.fixture
def mixed(embedded_services: EmbeddedServices, first_release: Path) -> Iterator[Stack]:
    """Today's broker; a gateway and a worker of each release; the first release's persistence, and
    so its schema."""
    url = database.create(embedded_services.database_url, "mixed")
    ports = str(free_range(100))
    with running_stack(url, embedded_services.redis_url, METRICS_PORT=ports) as stack:
        for name in ("asr_worker2", "persistence", "gateway2"):
            start(stack, name, first_release)
        for name in ("broker", "asr_worker", "gateway"):
            start(stack, name, ROOT)
        for gateway in GATEWAYS:
            stack.wait_ready(gateway, workers=2)
        yield stack


def start(stack: Stack, name: str, checkout: Path) -> None:
    if checkout != ROOT and name.startswith("asr_worker"):
        # The first release's supervisor ends a worker whose start takes longer than 15 s.
        stack.processes[name] = LoggedProcess(
            "asr_worker.service",
            checkout=str(checkout),
            **{**stack.environment, "OMP_NUM_THREADS": "1"},
        )
        return
    stack.checkout = checkout
    stack.start(name)


def replace(stack: Stack, **checkouts: Path) -> None:
    """Stop these processes and start them from these checkouts."""
    for name in checkouts:
        stack.processes.pop(name).stop()
    for name, checkout in checkouts.items():
        start(stack, name, checkout)
    for gateway in GATEWAYS:
        stack.wait_ready(gateway, workers=2)


async def connect(client: ResumingClient, url: str) -> None:
    """Start or resume. While persistence restarts, no claim can be stored: try again."""
    async with asyncio.timeout(RESUME_S_MAX):
        while (answer := await client.connect(url))["type"] != "ack":
            assert answer["code"] == "resume_unavailable", answer
            await client.close()
            await asyncio.sleep(0.5)


async def say(stack: Stack, audio: Spoken, gateways: list[str], changed: Task[None]) -> str:
    """A session that starts on one gateway, and ends on the other after the change; its id."""
    chunks = chunks_of(audio, "raw", "", 16_000, 1, CHUNK_MS)
    client = ResumingClient(chunks)
    for gateway, count in zip(gateways, (len(chunks) // 2, len(chunks)), strict=True):
        await connect(client, stack.url(gateway))
        for _ in range(count):
            await client.send(1)
            await asyncio.sleep(CHUNK_EVERY_S)
        if gateway == gateways[0]:
            await client.lose_connection()
            await changed
    final = await client.finish()
    assert final["text"] == audio.text == join_texts(client.texts.values())
    return client.session_id


async def load(stack: Stack, first_seed: int, **checkouts: Path) -> None:
    """Sessions on both gateways while processes are replaced. Each text is right, stored once, and
    shown by the gateway on which its session ended."""
    said = [spoken(first_seed + number, digits=(6, 9)) for number in range(SESSIONS)]
    changed = asyncio.create_task(asyncio.to_thread(replace, stack, **checkouts))
    ways = [GATEWAYS if number % 2 else GATEWAYS[::-1] for number in range(SESSIONS)]
    sessions = [say(stack, audio, way, changed) for audio, way in zip(said, ways, strict=True)]
    ids = await asyncio.gather(*sessions)
    for session_id, audio, way in zip(ids, said, ways, strict=True):
        await asyncio.to_thread(check_rows, stack, session_id, audio.text)
        path = f"/api/v1/session/{session_id}"
        shown = (await asyncio.to_thread(stack.get, path, way[-1])).body
        assert shown["text"] == join_texts(s["text"] for s in shown["segments"]) == audio.text
    await asyncio.to_thread(check_counters, stack)


def check_counters(stack: Stack) -> None:
    """No process has refused what another one sent."""
    found = stack.metrics()
    for name, reasons in REFUSALS.items():
        for reason in reasons:
            assert not found.total(name, reason=reason), (name, reason, stack.log_tail())


def check_rows(stack: Stack, session_id: str, text: str) -> None:
    completed = partial(database.is_completed, stack.database_url, session_id)
    wait_until(lambda: bool(completed()), "the session's end is stored")
    row = database.stored_sessions(stack.database_url, [session_id])[session_id]
    in_order = sorted(row.segments, key=lambda segment: segment.segment_index)
    assert row.text == text == join_texts(segment.text or "" for segment in in_order)


@pytest.mark.timeout(600)
def test_a_rolling_upgrade_under_load(
    embedded_services: EmbeddedServices, first_release: Path
) -> None:
    """From the first release to today's, one process after the other, as docs/operations.md has it:
    sessions come and go all the time, and none notices more than a resumption."""
    url = database.create(embedded_services.database_url, "rolling")
    settings = {"METRICS_PORT": str(free_range(100)), "PORT": str(free_port())}
    with running_stack(url, embedded_services.redis_url, **settings) as stack:
        for name in UPGRADE_ORDER:
            start(stack, name, first_release)
        stack.wait_ready(workers=2, timeout_s=START_S_MAX)
        loads = [arriving(stack, seed=94)]
        for name, ready in UPGRADE_ORDER.items():
            if name == GATEWAYS[0]:
                # On a busy machine the first ones have ended before it is the gateways' turn.
                loads.append(arriving(stack, seed=95))
                time.sleep(ARRIVING_IN_S)
            check_counters(stack)
            stack.processes.pop(name).stop()
            start(stack, name, ROOT)
            stack.processes[name].event(ready, timeout_s=START_S_MAX)
        outcomes = [outcome for each in loads for outcome in each.wait(timeout_s=240.0)]
        check_counters(stack)
        ids = [outcome.session_id for outcome in outcomes]
        wait_until(lambda: all(map(partial(database.is_completed, url), ids)), "rows")
        assert not oracle.texts_wrong(outcomes, ARRIVING * len(loads))
        assert not oracle.rows_wrong(outcomes, database.stored_sessions(url, ids))
        assert any(outcome.resumes for outcome in outcomes)


def arriving(stack: Stack, seed: int) -> Load:
    return Load(
        stack.url(), sessions=ARRIVING, duration_s=SPEAKING_S, ramp_s=ARRIVING_IN_S, seed=seed
    )


async def test_each_process_of_the_first_release_works_with_todays(
    mixed: Stack, first_release: Path
) -> None:
    await load(mixed, 9_100)
    await load(mixed, 9_200, persistence=ROOT, broker=first_release)
    # The schema is now newer than the first release knows.
    await load(mixed, 9_300, persistence=first_release, broker=ROOT)
    with psycopg.connect(mixed.database_url) as connection:
        (workers,) = connection.execute(
            "SELECT count(DISTINCT worker_id) FROM asr_segments WHERE worker_id <> ''"
        )
    assert workers == (2,)
