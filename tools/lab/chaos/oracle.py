"""What must hold after any fault (docs/reliability.md), as pure checks of what was found.

Each check returns what is wrong, as sentences; nothing found means that it holds. A check that has
nothing to look at has failed: not seen is not right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.session.transcript import join_texts
from tools.lab.loadtest.user import Outcome

DESCRIPTORS_MORE_MAX = 24
MEMORY_GROWTH_MAX = 1.35
MEMORY_MORE_MB = 60.0


@dataclass(frozen=True, slots=True)
class StoredSegment:
    segment_index: int
    text: str | None


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session's rows."""

    status: str
    text: str | None
    segments: tuple[StoredSegment, ...]
    chunks: int


@dataclass(slots=True)
class Resources:
    """Of the system at rest. By process id, so that a restarted process is not compared; memory of
    processes that have had time to load everything only."""

    descriptors: dict[int, int] = field(default_factory=dict)
    memory_mb: dict[int, float] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)


def texts_wrong(outcomes: Sequence[Outcome], sessions: int) -> list[str]:
    """Every session ended with the text of a run without faults, each segment told once."""
    found = [
        f"session {o.session_id}: {o.status}: {o.reason}: expected {o.expected!r}, told {o.text!r}"
        for o in outcomes
        if o.status != "succeeded"
    ]
    if len(outcomes) != sessions:
        found.append(f"{len(outcomes)} outcomes of {sessions} sessions")
    return found


def rows_wrong(outcomes: Sequence[Outcome], stored: Mapping[str, StoredSession]) -> list[str]:
    """PostgreSQL holds each session complete, its segments each once and without a gap, and their
    texts make up its text."""
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
            found.append(f"session {outcome.session_id}: segments say {joined!r}")
        if not session.chunks:
            found.append(f"session {outcome.session_id}: no chunks")
    if not outcomes:
        found.append("no session to look at")
    return found


def promises_broken(told_stored: Mapping[str, bool]) -> list[str]:
    """``told_stored``: for each session told ``stored: true``, whether its row was committed."""
    return [
        f"session {session_id}: told stored, but it was not"
        for session_id, committed in told_stored.items()
        if not committed
    ]


def left_over(queue: Mapping[str, object], gauges: Mapping[str, float]) -> list[str]:
    """Queues and counters are back at nothing."""
    names = ("queued", "processing")
    found = [f"queue: {name} is {queue.get(name)!r}" for name in names if queue.get(name) != 0]
    if not gauges:
        found.append("no gauges to look at")
    return found + [f"{name} is {value:g}" for name, value in gauges.items() if value]


def leaks(before: Resources, after: Resources) -> list[str]:
    """No process that lived through it has many more descriptors or much more memory."""
    found = []
    if not after.descriptors:
        found.append("no process to look at")
    for pid in before.descriptors.keys() & after.descriptors.keys():
        more = after.descriptors[pid] - before.descriptors[pid]
        if more > DESCRIPTORS_MORE_MAX:
            found.append(f"{after.names[pid]}: {more} more file descriptors")
    for pid in before.memory_mb.keys() & after.memory_mb.keys():
        name = after.names[pid]
        limit_mb = before.memory_mb[pid] * MEMORY_GROWTH_MAX + MEMORY_MORE_MB
        if after.memory_mb[pid] > limit_mb:
            found.append(
                f"{name}: {after.memory_mb[pid]:.0f} MB, {before.memory_mb[pid]:.0f} MB before"
            )
    return found
