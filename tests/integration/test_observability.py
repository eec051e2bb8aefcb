"""What a running pipeline tells its operators: metrics of all four kinds of process."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg
import pytest
from prometheus_client.samples import Sample

from runtime.metrics import PORT_OFFSETS
from tests.conftest import EmbeddedServices
from tests.integration.exposition import Exposition, parse, problems, scrape
from tests.integration.speech import slices, spoken
from tests.integration.stack import Stack, free_port, running_stack
from tests.promql import Query
from tests.test_deploy import QUERIES, alerts
from tests.test_metrics import METRICS, OWNERS
from tools.client import FinalText, connect

SELECTOR = re.compile(r"\b(?:asr|process)_\w+(?:\{[^}]*\})?|\bup\{[^}]*\}")
SAID = spoken(77, digits=(6, 6))


@dataclass(frozen=True)
class Observed:
    """A pipeline in which one session was held, and what its processes showed after that."""

    stack: Stack
    session_id: str
    shown: dict[str, Exposition]
    """By process."""


@pytest.fixture(scope="module")
def observed(embedded_services: EmbeddedServices) -> Iterator[Observed]:
    name = f"observed_{uuid.uuid4().hex}"
    with psycopg.connect(embedded_services.database_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    url = urlsplit(embedded_services.database_url)._replace(path=f"/{name}").geturl()
    settings = {"METRICS_PORT": str(free_port()), "LOG_LEVEL": "debug"}
    with running_stack(url, embedded_services.redis_url, **settings) as stack:
        stack.start_all()
        session_id = asyncio.run(_say(stack))
        ports = {
            process: stack.processes[process].event("metrics_served")["port"]
            for process in PORT_OFFSETS
        }
        yield Observed(stack, session_id, {name: scrape(port) for name, port in ports.items()})


async def _say(stack: Stack) -> str:
    async with connect(stack.url(), binary=False) as session:
        for chunk in slices(SAID.pcm.tobytes(), 6_400):
            await session.send(chunk)
        await session.finish()
        events = [event async for event in session.events()]
    final = events[-1]
    assert isinstance(final, FinalText) and final.text == SAID.text and final.stored
    return session.session_id


# ------------------------------------------------------------------------------------------ metrics


def test_the_format_of_every_process(observed: Observed) -> None:
    assert {name: problems(shown) for name, shown in observed.shown.items()} == {
        name: [] for name in PORT_OFFSETS
    }


def test_every_process_shows_its_own_metrics_and_no_others(observed: Observed) -> None:
    for process, shown in observed.shown.items():
        ours = {name for name in shown.families if name.startswith("asr_")}
        expected = {
            name
            for name in METRICS
            if OWNERS["_".join(name.split("_")[:2])] in (process, "runtime")
        }
        assert ours == expected
        assert {"process_open_fds", "process_max_fds"} <= shown.families.keys()
        (build,) = shown.samples("asr_build_info")
        assert build.labels["process"] == process


def test_an_utterance_leaves_its_times_everywhere(observed: Observed) -> None:
    for process, name in {
        "gateway": "asr_gateway_segment_seconds_count",
        "broker": "asr_broker_queue_seconds_count",
        "asr_worker": "asr_worker_batch_size_count",
        "persistence": "asr_persistence_store_seconds_count",
    }.items():
        assert sum(sample.value for sample in observed.shown[process].samples(name)) >= 1
    gateway = observed.shown["gateway"]
    for name in ("chunk_seconds", "finish_seconds", "store_seconds"):
        assert sum(s.value for s in gateway.samples(f"asr_gateway_{name}_count")) >= 1


# ---------------------------------------------------------------------------- alerts and dashboards


def samples(observed: Observed) -> list[Sample]:
    """All that a scraper has of a pipeline at rest, with the labels that it adds."""
    found = []
    for process, shown in observed.shown.items():
        scraper = {"job": f"asr-{process}".replace("asr-asr_", "asr-"), "instance": process}
        found.append(Sample("up", scraper, 1.0))
        for family in shown.families.values():
            found += [Sample(s.name, {**s.labels, **scraper}, s.value) for s in family.samples]
    return found


def test_no_alert_fires_at_rest_and_each_finds_its_series(observed: Observed) -> None:
    there = samples(observed)
    firing = [rule["alert"] for rule in alerts() if Query(rule["expr"], there).fires]
    assert firing == []
    for expression in QUERIES.values():
        for part in SELECTOR.findall(expression):
            assert Query(part, there).value, part


@pytest.mark.parametrize(
    "name, value, alert",
    [
        ("asr_broker_workers", 0.0, "AsrNoWorkers"),
        ("asr_gateway_broker_up", 0.0, "AsrNoBroker"),
        ("process_open_fds", 1e9, "AsrDescriptors"),
        ("asr_broker_expected_wait_seconds", 3.5, "AsrQueueWait"),
        ("asr_gateway_outbox_records", 150_000.0, "AsrStorageBacklog"),
        ("asr_gateway_spool_damaged_files_total", 1.0, "AsrRecordsLost"),
    ],
)
def test_alerts_fire(observed: Observed, name: str, value: float, alert: str) -> None:
    there = [s._replace(value=value) if s.name == name else s for s in samples(observed)]
    (rule,) = (rule for rule in alerts() if rule["alert"] == alert)
    assert Query(rule["expr"], there).fires


def test_the_gateways_http_port_shows_the_same(observed: Observed) -> None:
    shown = parse(observed.stack.get("/metrics").body)
    assert problems(shown) == []
    assert shown.families.keys() == observed.shown["gateway"].families.keys()


@pytest.mark.parametrize(
    "text",
    [
        "# HELP a_total x\n# TYPE a_total counter\na_total 1\na_total 2\n",
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a_total x\n# TYPE a_total gauge\na_total 1\n",
        '# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 1\nh_sum 1\nh_count 1\n',
        '# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_count 1\n',
        "a 1\n",
    ],
)
def test_the_check_itself_sees_faults(text: str) -> None:
    assert problems(parse(text))
