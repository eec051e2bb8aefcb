"""Two brokers as real processes; a gateway, two workers and persistence connect to both."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from functools import partial
from typing import Any

from tests.conftest import EmbeddedServices
from tests.integration.processor_waits import ProcessorWaits
from tools.lab.harness import database
from tools.lab.harness.process import LoggedProcess
from tools.lab.harness.stack import ADMITS_ALL, Stack, wait_until
from tools.lab.loadtest.load import Load, slowest_ms

WORKERS = 2
SPEECH_S = 30.0
WAIT_MS_MAX = 5_000
"""The promised longest wait for a text when a broker dies, beyond that of a healthy system, and
beyond what other programs of a busy machine make it wait for a processor."""
SESSIONS_FIRST, SESSIONS_LATER = 4, 16


class TwoBrokers(Stack):
    """``broker`` and ``broker2`` bind an endpoint each; the others know both."""

    def settings_of(self, name: str) -> dict[str, str]:
        ends = {
            f"BROKER_{end}": [f"ipc://{self.directory}/{end}{number}" for number in ("", "2")]
            for end in ("FRONTEND", "BACKEND", "EVENTS")
        }
        if name.startswith("broker"):
            own = {key: ends_of[name == "broker2"] for key, ends_of in ends.items()}
        else:
            own = {key: ",".join(ends_of) for key, ends_of in ends.items()}
        return {**self.environment, **own}

    def brokers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/api/v1/health").body["brokers"]
        return found

    def kill(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes.pop(name).wait()


def test_one_broker_joins_and_another_dies_for_good(embedded_services: EmbeddedServices) -> None:
    url = database.create(embedded_services.database_url, "brokers")
    services = {"DATABASE_URL": url, "REDIS_URL": embedded_services.redis_url}
    stack = TwoBrokers({**ADMITS_ALL, **services, "METRICS_PORT": "0"})
    try:
        for name in ("broker", "persistence", "gateway"):
            stack.start(name)
        for number in range(WORKERS):
            # Without a supervisor, which would not wait for the imports on a busy machine.
            settings = stack.settings_of("asr_worker")
            stack.processes[f"asr_worker{number}"] = LoggedProcess("asr_worker.service", **settings)
        stack.wait_ready(workers=WORKERS)
        assert [each["live"] for each in stack.brokers()] == [True, False]
        load = partial(Load, stack.url(), duration_s=SPEECH_S, ramp_s=1.0)
        early = load(sessions=SESSIONS_FIRST, seed=1)
        wait_until(lambda: stack.brokers()[0]["sessions"] == SESSIONS_FIRST, "the first sessions")

        stack.start("broker2")
        wait_until(
            lambda: stack.brokers()[1]["live"] and stack.brokers()[1]["workers"] == WORKERS,
            "the second broker",
        )
        late = load(sessions=SESSIONS_LATER, seed=2)
        both = SESSIONS_FIRST + SESSIONS_LATER
        wait_until(lambda: sum(each["sessions"] for each in stack.brokers()) == both, "the rest")
        first, second = (each["sessions"] for each in stack.brokers())
        assert second > 0, "no new session went to the broker that was added"
        assert first >= SESSIONS_FIRST, "a session has moved to the broker that was added"

        members = [member.pid for member in stack.family()]
        waits = ProcessorWaits([*members, os.getpid()])
        killed_s = time.monotonic()
        stack.kill("broker")
        wait_until(lambda: stack.brokers()[1]["sessions"] == both, "all sessions have moved")
        assert stack.get("/api/v1/health").body["workers_ready"] == WORKERS
        # Texts that are late for other reasons than waiting for a processor come after this.
        time.sleep(max(0.0, killed_s + 2 * WAIT_MS_MAX / 1000 - time.monotonic()))
        waited_ms = 1000 * waits.seconds()
        outcomes = [(each, each.wait(120)) for each in (early, late)]
        healthy_ms, slow_ms = 0.0, 0.0
        for each, ended in outcomes:
            assert Counter(one.status for one in ended) == {"succeeded": len(ended)}
            assert all(one.stored for one in ended)
            killed_in_s = killed_s - each.began_s
            healthy_ms = max(healthy_ms, slowest_ms(ended, 0.0, killed_in_s - WAIT_MS_MAX / 1000))
            slow_ms = max(slow_ms, slowest_ms(ended, killed_in_s, 1e9))
        print(
            f"slowest text: {healthy_ms:.0f} ms before, {slow_ms:.0f} ms after the kill, "
            f"of which the processes waited for a processor: {waited_ms:.0f} ms at most"
        )
        assert slow_ms <= WAIT_MS_MAX + healthy_ms + waited_ms
        expected = {one.session_id: one.text for _, ended in outcomes for one in ended}
        rows = database.stored_sessions(url, expected)
        assert {one: row.text for one, row in rows.items()} == expected
        for row in rows.values():
            indexes = sorted(segment.segment_index for segment in row.segments)
            assert row.status == "completed" and indexes == list(range(len(indexes)))
    finally:
        stack.stop()
