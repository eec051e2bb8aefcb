"""Scaling as the chart asks for it: its queries in a real Prometheus, and a test in the place of
KEDA and the HorizontalPodAutoscaler."""

from __future__ import annotations

import contextlib
import math
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import EmbeddedServices
from tests.deploy.helm import rendered
from tests.deploy.test_monitoring import QUERIES, alerts
from tests.integration import slow_demo
from tests.integration.prometheus import DEPLOYED, Prometheus, program
from tools.lab.chaos.oracle import rows_wrong, texts_wrong
from tools.lab.harness import database
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import LoggedProcess
from tools.lab.harness.stack import Stack, wait_until
from tools.lab.loadtest.load import Load
from tools.lab.loadtest.user import Outcome

NAMESPACE = "asr"
WORKERS_MAX = 3
COOLDOWN_S = 5
"""Instead of the chart's five minutes."""
REMOVAL_S = 3.0
"""Instead of its minute between the removals of two pods."""
POLL_S = 1.0
TOLERANCE = 0.1
"""Of a HorizontalPodAutoscaler: a smaller deviation changes nothing."""
CROWD, CROWD_S = 8, 10.0
FEW, FEW_S = 1, 25.0
"""They come when the crowd has gone. Unless the machine is busy, they still speak when workers are
removed."""
END_S_MAX = 150.0


@dataclass(frozen=True)
class Trigger:
    """A trigger of a ScaledObject as KEDA reads it."""

    query: str
    threshold: float
    metric_type: str
    zero_if_missing: bool

    @classmethod
    def of(cls, rendered_trigger: dict[str, Any]) -> Trigger:
        metadata = rendered_trigger["metadata"]
        return cls(
            metadata["query"],
            float(metadata["threshold"]),
            rendered_trigger["metricType"],
            metadata["ignoreNullValues"] == "true",
        )

    def desired(self, prometheus: Prometheus, pods: int) -> int | None:
        """The number of pods by this trigger; None: not known, so no pod is removed."""
        values = prometheus.values(self.query)
        assert len(values) <= 1, "KEDA wants one value"
        if not values and not self.zero_if_missing:
            return None
        value = values[0] if values else 0.0
        assert math.isfinite(value), f"KEDA takes {value} for a large negative number"
        ratio = value / self.threshold / (1 if self.metric_type == "Value" else pods)
        return pods if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * pods)


class Scaler:
    """Starts and ends workers of ``stack`` by the ScaledObject ``scaled``."""

    def __init__(self, stack: Stack, prometheus: Prometheus, scaled: dict[str, Any]) -> None:
        spec = scaled["spec"]
        self.triggers = [Trigger.of(each) for each in spec["triggers"]]
        self.least, self.most = spec["minReplicaCount"], spec["maxReplicaCount"]
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        self.window_s = behavior["stabilizationWindowSeconds"]
        (policy,) = behavior["policies"]
        self.removed_at_once = policy["value"]
        self.workers: list[LoggedProcess] = []
        self.removed: list[LoggedProcess] = []
        self.counts: list[int] = []
        self._stack = stack
        self._prometheus = prometheus
        self._started = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._removed_s = -math.inf

    def begin(self) -> None:
        self.add(self.least)
        self.counts.append(self.least)

    def turn(self) -> None:
        """Ask Prometheus once, and act."""
        now_s, pods = time.monotonic(), len(self.workers)
        asked = [trigger.desired(self._prometheus, pods) for trigger in self.triggers]
        known = [each for each in asked if each is not None]
        desired = max(known if len(known) == len(asked) else [*known, pods])
        self._recent.append((now_s, min(max(desired, self.least), self.most)))
        while self._recent[0][0] < now_s - self.window_s:
            self._recent.popleft()
        stable = max(each for _, each in self._recent)
        if stable > pods:
            self.add(stable - pods)
        elif stable < pods and now_s - self._removed_s >= REMOVAL_S:
            self._removed_s = now_s
            self.remove(min(self.removed_at_once, pods - stable))
        self.counts.append(len(self.workers))
        self.show_targets()

    def add(self, count: int) -> None:
        for _ in range(count):
            self._started += 1
            worker = LoggedProcess(slow_demo.MODULE, **self._stack.environment)
            self._stack.processes[f"asr_worker{self._started}"] = worker
            self.workers.append(worker)

    def remove(self, count: int) -> None:
        """The oldest, which have the most to do."""
        for worker in self.workers[:count]:
            worker.begin_stop()
            self.removed.append(worker)
        del self.workers[:count]

    def show_targets(self) -> None:
        processes = {
            kind: [self._stack.processes[kind]] for kind in ("broker", "persistence", "gateway")
        }
        ports = {
            kind: [
                event["port"]
                for process in of_kind
                for event in process.events
                if event.get("event") == "metrics_served"
            ]
            for kind, of_kind in {**processes, "asr_worker": self.workers}.items()
        }
        self._prometheus.scrape(ports, namespace=NAMESPACE)


@dataclass(frozen=True)
class Scaled:
    """A system that was scaled, which still runs."""

    prometheus: Prometheus
    scaler: Scaler
    outcomes: list[Outcome]
    database_url: str
    gateway_trigger: Trigger


@pytest.fixture(scope="module")
def scaled(
    embedded_services: EmbeddedServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scaled]:
    program("prometheus")
    objects = {
        each["metadata"]["name"]: each
        for each in rendered(
            autoscaling__enabled="true",
            autoscaling__worker__max=WORKERS_MAX,
            autoscaling__worker__cooldownSeconds=COOLDOWN_S,
            models='[{"name": "demo", "model": "demo"}]',
        )
        if each["kind"] == "ScaledObject"
    }
    url = database.create(embedded_services.database_url, "scaling")
    services = {"DATABASE_URL": url, "REDIS_URL": embedded_services.redis_url}
    # Gateways refuse sessions by the load of the workers, and not by that of other programs.
    limits = {"ADMIT_BUSY_MAX": "0", "ADMIT_DELAY_MS_MAX": "0"}
    stack = Stack({**services, **limits, "METRICS_PORT": str(free_port())})
    with (
        Prometheus(tmp_path_factory.mktemp("prometheus")) as prometheus,
        contextlib.ExitStack() as exits,
    ):
        exits.callback(stack.stop)
        for kind in ("broker", "persistence", "gateway"):
            stack.start(kind)
        scaler = Scaler(stack, prometheus, objects["rel-worker-demo"])
        scaler.begin()
        stack.wait_ready()
        scaler.show_targets()
        known = scaler.triggers[0].query
        wait_until(lambda: bool(prometheus.values(known)), "the first scrapes")
        outcomes = _scale_under_load(stack, scaler)
        gateway = Trigger.of(objects["rel-gateway"]["spec"]["triggers"][0])
        yield Scaled(prometheus, scaler, outcomes, url, gateway)


def _scale_under_load(stack: Stack, scaler: Scaler) -> list[Outcome]:
    crowd = Load(stack.url(), sessions=CROWD, duration_s=CROWD_S, ramp_s=1.0, seed=1)
    few: Load | None = None
    end_s = time.monotonic() + END_S_MAX
    while few is None or few.running or len(scaler.workers) > scaler.least:
        assert time.monotonic() < end_s, f"workers: {scaler.counts}\n{stack.log_tail()}"
        time.sleep(POLL_S)
        scaler.turn()
        if few is None and not crowd.running:
            few = Load(stack.url(), sessions=FEW, duration_s=FEW_S, ramp_s=1.0, seed=2)
    return [*crowd.wait(0.0), *few.wait(0.0)]


def test_workers_are_added_and_removed_and_no_word_is_lost(scaled: Scaled) -> None:
    assert scaled.scaler.counts[0] == scaled.scaler.counts[-1] == scaled.scaler.least == 1
    assert max(scaled.scaler.counts) >= 2, scaled.scaler.counts
    assert texts_wrong(scaled.outcomes, CROWD + FEW) == []
    ids = [outcome.session_id for outcome in scaled.outcomes]
    assert rows_wrong(scaled.outcomes, database.stored_sessions(scaled.database_url, ids)) == []


def test_removed_workers_end_in_order(scaled: Scaled) -> None:
    codes = [worker.wait() for worker in scaled.scaler.removed]
    assert codes and set(codes) == {0}


def test_gateways_scale_by_their_connections(scaled: Scaled) -> None:
    query = scaled.gateway_trigger.query
    wait_until(lambda: scaled.prometheus.values(query) == [0.0], "a scrape after the sessions")
    assert scaled.gateway_trigger.desired(scaled.prometheus, 2) == 0


def test_prometheus_evaluates_the_alert_rules(scaled: Scaled) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = scaled.prometheus.get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), "evaluations")
    assert {rule["name"] for rule in rules()} == {rule["alert"] for rule in alerts()}
    assert {rule["name"]: rule.get("lastError") for rule in rules() if rule["health"] != "ok"} == {}


@pytest.mark.parametrize("place", QUERIES)
def test_prometheus_evaluates_the_queries(scaled: Scaled, place: str) -> None:
    """Alerts have no result, as none fires, and panels that leave out zeros may have none."""
    query = QUERIES[place].replace("$__rate_interval", "1m")
    may_be_empty = query.endswith(" > 0") or place in {rule["alert"] for rule in alerts()}
    assert scaled.prometheus.values(query) or may_be_empty, query


def test_promtool_accepts_the_files() -> None:
    for kind, file in {"rules": "alerts.yml", "config": "prometheus.yml"}.items():
        done = subprocess.run(
            [program("promtool"), "check", kind, str(DEPLOYED / file)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
