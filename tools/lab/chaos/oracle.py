"""Promises that hold after any fault (docs/reliability.md), as pure checks of observations.

Each check returns problems as sentences; an empty list means that it holds. A check without
observations has failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.session.transcript import join_texts
from tools.lab.harness.database import StoredSession
from tools.lab.harness.usage import Usage
from tools.lab.loadtest.user import Outcome

CHECKED = ("gateway", "broker", "persistence", "asr_worker")
"""Kinds of process that must not leak."""
DESCRIPTORS_MORE_MAX = 24
MEMORY_GROWTH_MAX = 1.35
MEMORY_MORE_MB = 60.0
LOADED_S = 5.0
"""A younger process has not loaded everything yet, so its memory is no baseline."""


def texts_wrong(outcomes: Sequence[Outcome], sessions: int) -> list[str]:
    """Every session ended with its whole text, and received each segment once."""
    found = [
        f"session {o.session_id}: {o.status}: {o.reason}: expected {o.expected!r}, got {o.text!r}"
        for o in outcomes
        if o.status != "succeeded"
    ]
    if len(outcomes) != sessions:
        found.append(f"{len(outcomes)} outcomes of {sessions} sessions")
    return found


def rows_wrong(outcomes: Sequence[Outcome], stored: Mapping[str, StoredSession]) -> list[str]:
    """PostgreSQL holds each session complete, each of its segments once and without a gap, and the
    segments' texts make up the session's text."""
    found = []
    for outcome in outcomes:
        session = stored.get(outcome.session_id)
        if session is None:
            found.append(f"session {outcome.session_id}: no row")
            continue
        indices = [segment.segment_index for segment in session.segments]
        if session.status != "completed":
            found.append(f"session {outcome.session_id}: its row is {session.status}")
        if session.text != outcome.expected:
            found.append(f"session {outcome.session_id}: its row has {session.text!r}")
        if sorted(indices) != list(range(len(indices))):
            found.append(f"session {outcome.session_id}: segments {sorted(indices)}")
        joined = join_texts(
            segment.text or ""
            for segment in sorted(session.segments, key=lambda one: one.segment_index)
        )
        if joined != outcome.expected:
            found.append(f"session {outcome.session_id}: segments make {joined!r}")
        if not session.chunks:
            found.append(f"session {outcome.session_id}: no chunks")
    if not outcomes:
        found.append("no session to look at")
    return found


def promises_broken(
    committed: Mapping[str, bool | None], stored: Mapping[str, StoredSession]
) -> list[str]:
    """Every session whose client received ``stored: true`` was committed at that moment.

    ``committed`` has these sessions, with None where the database did not answer at that moment:
    then the row in ``stored`` decides, if there is one.
    """
    return [
        f"session {session_id}: the client received stored: true before the commit"
        for session_id, seen in committed.items()
        if seen is False
        or (seen is None and session_id in stored and stored[session_id].status != "completed")
    ]


def left_over(queue: Mapping[str, object], gauges: Mapping[str, float]) -> list[str]:
    """Queues and gauges are back at zero."""
    names = ("queued", "processing")
    found = [f"queue: {name} is {queue.get(name)!r}" for name in names if queue.get(name) != 0]
    if not gauges:
        found.append("no gauges to look at")
    return found + [f"{name} is {value:g}" for name, value in gauges.items() if value]


def leaks(before: Sequence[Usage], after: Sequence[Usage]) -> list[str]:
    """No process that survived the fault has many more descriptors or much more memory."""
    survivors = [process for process in after if process.kind in CHECKED]
    found = [] if survivors else ["no process to look at"]
    earlier = {process.pid: process for process in before}
    for now in survivors:
        then = earlier.get(now.pid)
        if then is None:
            continue
        more = now.descriptors - then.descriptors
        if more > DESCRIPTORS_MORE_MAX:
            found.append(f"{now.kind}: {more} more file descriptors")
        limit_mb = then.rss_mb * MEMORY_GROWTH_MAX + MEMORY_MORE_MB
        if then.age_s >= LOADED_S and now.rss_mb > limit_mb:
            found.append(f"{now.kind}: {now.rss_mb:.0f} MB, {then.rss_mb:.0f} MB before")
    return found
