"""Metrics, traces and logs of a running pipeline, for all four kinds of process."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urlsplit

import openai
import pytest
from prometheus_client.samples import Sample

from asr_client import FinalResult
from runtime import tracing
from runtime.metrics import PORT_OFFSETS
from tests.conftest import EmbeddedServices
from tests.deploy.test_monitoring import QUERIES, alerts
from tests.integration.admitted import open_session
from tests.integration.collector import CollectedSpan, Collector, collector
from tests.integration.exposition import Exposition, parse, problems, scrape
from tests.integration.resuming_client import ResumingClient
from tests.integration.speech import slices, spoken
from tests.promql import Query
from tests.test_metrics import METRICS, OWNERS
from tools.lab.encoded_audio import encode
from tools.lab.harness import database
from tools.lab.harness.ports import free_port
from tools.lab.harness.stack import Stack, running_stack, wait_until

SELECTOR = re.compile(r"\b(?:asr|process)_\w+(?:\{[^}]*\})?|\bup\{[^}]*\}")
SAID = spoken(77, digits=(8, 8), voice="en_slt")
CHUNKS = slices(SAID.pcm.tobytes(), 6_400)
PASSWORD = "pw-9f3c51d0e2"
WRONG_TOKEN = "no-such-token-77"
POISON = bytes.fromhex("1a45dfa3") + bytes(range(256)) * 8


@dataclass(frozen=True)
class Observed:
    """A pipeline in which one session was held, and what its processes showed after that."""

    stack: Stack
    sessions: tuple[str, ...]
    """Ids: one held in one piece, one resumed, one of bad audio."""
    secrets: dict[str, str]
    """Secrets and texts that no log may contain, by their kind."""
    shown: dict[str, Exposition]
    """By process."""
    spans: Collector


@pytest.fixture(scope="module")
def observed(embedded_services: EmbeddedServices) -> Iterator[Observed]:
    parts = urlsplit(database.create(embedded_services.database_url, "observed"))
    login = f"{parts.username}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"
    url = parts._replace(netloc=login).geturl()
    settings = {"METRICS_PORT": str(free_port()), "LOG_LEVEL": "debug"}
    with (
        collector() as spans,
        running_stack(
            url,
            embedded_services.redis_url,
            **settings,
            OTEL_EXPORTER_OTLP_ENDPOINT=spans.endpoint,
        ) as stack,
    ):
        stack.start_all()
        sessions, secrets = asyncio.run(_hold_sessions(stack))
        ports = {
            process: stack.processes[process].event("metrics_served")["port"]
            for process in PORT_OFFSETS
        }
        _at_rest(ports["broker"])
        shown = {process: scrape(port) for process, port in ports.items()}
        # The log lines for an unreachable database.
        nowhere = f"postgresql://asr:{PASSWORD}@127.0.0.1:1/asr"
        stack.start("persistence2", DATABASE_URL=nowhere).event("database_unavailable")
        yield Observed(stack, sessions, secrets, shown, spans)


def _at_rest(broker_port: int) -> None:
    """A worker that a busy machine kept still for some seconds is missed, and is soon back."""

    def has_workers() -> bool:
        return sum(s.value for s in scrape(broker_port).samples("asr_broker_workers")) >= 1

    wait_until(has_workers, "the broker has a worker again")


async def _hold_sessions(stack: Stack) -> tuple[tuple[str, ...], dict[str, str]]:
    whole = await _say(stack)
    resumed, secrets = await _say_with_a_break(stack)
    poisoned = await _send_poison(stack)
    await _upload(stack)
    await asyncio.to_thread(stack.get, f"/api/v1/session/{whole}?format=text")
    await asyncio.to_thread(stack.get, f"/api/v1/session/{whole}", "gateway", "DELETE")
    return (whole, resumed, poisoned), secrets


async def _say(stack: Stack) -> str:
    async with open_session(stack.url(), binary=False) as session:
        for chunk in CHUNKS:
            await session.send(chunk)
        await session.finish()
        events = [event async for event in session.events()]
    final = events[-1]
    assert isinstance(final, FinalResult) and final.text == SAID.text and final.stored
    return session.session_id


async def _say_with_a_break(stack: Stack) -> tuple[str, dict[str, str]]:
    """A connection is lost in the middle; then a wrong token is tried, and the right one."""
    client = ResumingClient(CHUNKS, partials=True)
    await client.connect(stack.url())
    await client.send(len(CHUNKS) // 2)
    await client.lose_connection()
    answer = await client.connect(stack.url(), resume_token=WRONG_TOKEN)
    assert answer["code"] == "not_resumable"
    await client.close()
    await client.connect(stack.url())
    await client.send()
    assert (await client.finish())["text"] == SAID.text
    assert client.resume_token is not None
    secrets = {"resume token": client.resume_token, "wrong resume token": WRONG_TOKEN}
    return client.session_id, secrets


async def _send_poison(stack: Stack) -> str:
    """A WebM file that is none, as one of the chunks."""
    client = ResumingClient([POISON, *CHUNKS], mode="chunk")
    await client.connect(stack.url())
    await client.send(1)
    while (await client.listen()).get("code") != "bad_audio":
        pass
    await client.send(2)
    await client.finish()
    return client.session_id


async def _upload(stack: Stack) -> None:
    url = f"{stack.http_url()}/v1"
    async with openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=0) as client:
        file = ("speech.flac", encode(SAID.pcm, "flac", 16_000, 1))
        answer = await client.audio.transcriptions.create(model="demo", file=file)
    assert answer.text == SAID.text


# ------------------------------------------------------------------------------------------ metrics


def test_the_format_of_every_process(observed: Observed) -> None:
    assert {name: problems(shown) for name, shown in observed.shown.items()} == {
        name: [] for name in PORT_OFFSETS
    }


def test_promtool_agrees(observed: Observed) -> None:
    """Prometheus's own check, where it is installed (Debian: apt-get install prometheus)."""
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("no promtool on PATH")
    for process, shown in observed.shown.items():
        check = [promtool, "check", "metrics"]
        done = subprocess.run(
            check, input=shown.text, capture_output=True, text=True, check=False, timeout=60
        )
        assert (process, done.returncode, done.stderr) == (process, 0, "")


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
        ("asr_broker_expected_wait_seconds", 1_500.0, "AsrQueueWait"),
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


# --------------------------------------------------------------------------------------------- logs


def log_lines(observed: Observed) -> list[str]:
    return [line for process in observed.stack.processes.values() for line in process.lines]


def test_every_log_line_is_an_event_with_its_time(observed: Observed) -> None:
    lines = log_lines(observed)
    assert len(lines) > 20
    for line in lines:
        event = json.loads(line)
        assert {"event", "level", "timestamp", "process", "logger"} <= event.keys(), line


def test_no_log_contains_audio_text_tokens_or_passwords(observed: Observed) -> None:
    """Even at the level debug."""
    secrets = {**observed.secrets, "password": PASSWORD, "text": SAID.text}
    words = SAID.text.split()
    secrets |= {f"words {n}": " ".join(words[n : n + 3]) for n in range(len(words) - 2)}
    for n, chunk in enumerate([*CHUNKS, POISON]):
        # Libraries shorten what they log, in the middle.
        for place in (0, len(chunk) // 2 // 3 * 3, (len(chunk) - 30) // 3 * 3):
            piece = chunk[place : place + 30]
            secrets[f"base64 of chunk {n} at {place}"] = base64.b64encode(piece).decode()
            secrets[f"hex of chunk {n} at {place}"] = piece[:12].hex()
            secrets[f"spaced hex of chunk {n} at {place}"] = piece[:6].hex(" ")
            secrets[f"bytes of chunk {n} at {place}"] = repr(piece[:12])[2:-1]
    silent = {name for name, secret in secrets.items() if len(set(secret)) < 5}
    log = "\n".join(log_lines(observed))
    reported = {name for name in secrets.keys() - silent if secrets[name] in log}
    assert reported == set()
    assert len(silent) < len(secrets) / 2


def test_log_events_of_a_session_have_its_id(observed: Observed) -> None:
    for session_id in observed.sessions:
        events = [
            event["event"]
            for event in observed.stack.processes["gateway"].events
            if event.get("session_id") == session_id
        ]
        assert events[0] == "session_started" and events[-1] == "session_ended"
        assert ("session_resumed" in events) == (session_id == observed.sessions[1])


def test_the_last_line_of_a_session_summarises_it(observed: Observed) -> None:
    lines = {
        line["session_id"]: line
        for line in observed.stack.processes["gateway"].events
        if line["event"] == "session_ended"
    }
    for session_id in observed.sessions[:2]:
        line = lines[session_id]
        assert line["status"] == "completed"
        assert line["dialect"] == "native" and line["client"] == "127.0.0.1"
        assert line["words"] > 0 and line["segments"] > 0
        assert 0 < line["latency_p50_ms"] <= line["latency_p95_ms"]
        assert line["workers"]
    assert lines[observed.sessions[1]]["resumes"] == 1
    assert sum(lines[observed.sessions[2]]["errors"].values()) > 0


# ------------------------------------------------------------------------------------------- traces


def test_an_utterance_is_one_trace_over_all_processes(observed: Observed) -> None:
    session_id = observed.sessions[1]
    wanted = tracing.trace_id(session_id, 0)
    names = {"utterance", "segment", "queue", "inference", "store"}

    def spans() -> dict[str, CollectedSpan]:
        return {span.name: span for span in observed.spans.spans if span.trace_id == wanted}

    wait_until(lambda: spans().keys() == names, f"spans of {session_id}/0")
    found = spans()
    services = {name: span.service for name, span in found.items()}
    assert services == {
        "utterance": "asr-gateway",
        "segment": "asr-gateway",
        "queue": "asr-broker",
        "inference": "asr-worker",
        "store": "asr-persistence",
    }
    root = found.pop("utterance")
    assert root.parent_id is None
    assert {span.parent_id for span in found.values()} == {root.span_id}
    order = [found[name].start_ns for name in ("segment", "queue", "inference", "store")]
    # Clocks are read in four processes, and differ by less than this between the readings.
    assert all(after >= before - 5_000_000 for before, after in pairwise(order))
    assert all(span.start_ns <= span.end_ns for span in found.values())
    assert {span.attributes["session_id"] for span in found.values()} == {session_id}


def test_traces_contain_no_text_and_no_secret(observed: Observed) -> None:
    wait_until(lambda: len(observed.spans.spans) > 0, "a span")
    exported = b"".join(observed.spans.bodies)
    assert " ".join(SAID.text.split()[:2]).encode() not in exported
    assert not any(secret.encode() in exported for secret in observed.secrets.values())
