"""What the oracle looks at: rows, gauges, queue, descriptors and memory of the real system."""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict
from collections.abc import Iterable

import psutil
import psycopg

from runtime.metrics import PORT_OFFSETS
from tools.lab.chaos.oracle import Resources, StoredSegment, StoredSession
from tools.lab.chaos.system import GATEWAYS_MAX, KINDS, System

GAUGES_AT_REST = ("asr_gateway_connections", "asr_gateway_outbox_records", "asr_broker_queued_jobs")
CONNECT_TIMEOUT_S = 3
OURS = ("gateway", "broker", "persistence", "worker")
GROWN_UP_S = 5.0
"""A younger process has not loaded everything yet: what it needs says nothing."""


def connect(system: System) -> psycopg.Connection[tuple[object, ...]]:
    """Straight to the server, past the relay."""
    return psycopg.connect(system.database_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)


def is_committed(system: System, session_id: str) -> bool | None:
    """Whether the session's row is complete now; None if the database cannot be asked."""
    try:
        with connect(system) as database:
            row = database.execute(
                "SELECT status FROM asr_sessions WHERE id = %s", [session_id]
            ).fetchone()
    except psycopg.Error:
        return None
    return row is not None and row[0] == "completed"


def stored_sessions(system: System, session_ids: Iterable[str]) -> dict[str, StoredSession]:
    ids = list(session_ids)
    segments: defaultdict[str, list[StoredSegment]] = defaultdict(list)
    with connect(system) as database:
        for session_id, index, text in database.execute(
            "SELECT session_id, segment_index, text FROM asr_segments"
            " WHERE session_id = ANY (%s) AND NOT provisional",
            [ids],
        ):
            segment = StoredSegment(int(str(index)), None if text is None else str(text))
            segments[str(session_id)].append(segment)
        rows = database.execute(
            "SELECT id, status, text, (SELECT count(*) FROM asr_chunks WHERE session_id = id)"
            " FROM asr_sessions WHERE id = ANY (%s)",
            [ids],
        ).fetchall()
    return {
        str(session_id): StoredSession(
            str(status),
            None if text is None else str(text),
            tuple(segments[str(session_id)]),
            int(str(chunks)),
        )
        for session_id, status, text, chunks in rows
    }


def gauges(system: System) -> dict[str, float]:
    """Gauges that are nothing at rest, of every gateway and the broker."""
    first = system.metrics_port
    ports = [first + PORT_OFFSETS["broker"]]
    ports += [first + PORT_OFFSETS["gateway"] + number for number in range(GATEWAYS_MAX)]
    found = {}
    for port in ports:
        _, text = system.get("/metrics", port)
        for name in GAUGES_AT_REST:
            for match in re.finditer(rf"^{name} ([\d.e+]+)$", text, re.MULTILINE):
                found[f"{name}:{port - first}"] = float(match[1])
    return found


def resources(system: System) -> Resources:
    found = Resources()
    for kind in OURS:
        assert kind in KINDS
        for process in system.processes(kind):
            with contextlib.suppress(psutil.NoSuchProcess):
                found.descriptors[process.pid] = process.num_fds()
                found.names[process.pid] = kind
                if time.time() - process.create_time() >= GROWN_UP_S:
                    found.memory_mb[process.pid] = process.memory_info().rss / 1e6
    return found
