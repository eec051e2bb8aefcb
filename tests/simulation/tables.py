"""PostgreSQL's tables in memory, with the merge rules of ``persistence.store``.

``test_tables`` writes the same batches to a real database and compares the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from persistence.batch_buffer import Entry
from persistence.store import TIMELESS, first_superseded, segment_row, starts_in_ends
from persistence.values import as_json
from wire.messages import Result
from wire.records import (
    ChunkDetails,
    SegmentCopy,
    SessionDeleted,
    SessionFinished,
    SessionResumed,
    SessionStarted,
    SpeakerCentroid,
    SpeakerLabels,
)

RANKS = ("active", "lost", "interrupted", "abandoned", "failed", "completed")


@dataclass(slots=True)
class SessionRow:
    status: str = "active"
    started: bool = False
    generation: int = 0
    gateway_id: str = ""
    resume_token_hash: str = ""
    model: str = ""
    text: str | None = None
    duration_ms: int | None = None
    chunk_count: int | None = None
    segment_count: int | None = None
    created_at_ms: int = 0
    completed_at_ms: float = float("-inf")
    heard_s: float = 0.0
    """Time of the last commit for the session."""


Segment = dict[str, Any]
Version = tuple[int, int]
"""Generation and number of a record."""


@dataclass(slots=True)
class Tables:
    sessions: dict[str, SessionRow] = field(default_factory=dict)
    segments: dict[str, dict[int, Segment]] = field(default_factory=dict)
    chunks: set[tuple[str, int]] = field(default_factory=set)
    labels: dict[str, dict[int, tuple[Version, int]]] = field(default_factory=dict)
    """The speaker of each segment, and the record that says so."""
    centroids: dict[str, tuple[Version, tuple[SpeakerCentroid, ...]]] = field(default_factory=dict)
    stale_rows: int = 0
    stale_segments: set[tuple[str, int]] = field(default_factory=set)
    stale_ends: set[str] = field(default_factory=set)

    def write(self, entries: Sequence[Entry], now_s: float) -> list[Entry]:
        """One transaction, as ``persistence.store.write``."""
        for session_id in sorted({entry.session_id for entry in entries}):
            self.sessions.setdefault(session_id, SessionRow(heard_s=now_s))
        live = {
            entry.session_id: self.sessions[entry.session_id].generation
            for entry in entries
            if self.sessions[entry.session_id].status != "deleted"
        }
        kept = [entry for entry in entries if self._counts(entry, live)]
        for kind, write in (
            (SessionStarted, self._started),
            (ChunkDetails, self._chunks),
            (SegmentCopy, self._segments),
            (SpeakerLabels, self._speakers),
            (SessionFinished, self._finished),
            (SessionResumed, self._resumed),
            (SessionDeleted, self._deleted),
        ):
            chosen = [entry for entry in kept if isinstance(entry.body, kind)]
            if kind is SessionStarted:
                finished = [entry for entry in kept if isinstance(entry.body, SessionFinished)]
                chosen += starts_in_ends(finished)
            if chosen:
                write(chosen)
        for entry in kept:
            self.sessions[entry.session_id].heard_s = now_s
        return [entry for entry in entries if entry.session_id in live and entry not in kept]

    def resume_state(self, session_id: str) -> dict[str, Any] | None:
        """As ``SessionReader.resume_state``."""
        row = self.sessions.get(session_id)
        if row is None:
            return None
        found = asdict(row)
        found["session_id"] = session_id
        rows = self.segments.get(session_id, {})
        found["segments"] = [_result_of(rows[index]) for index in sorted(rows)]
        labels = self.labels.get(session_id, {})
        found["speakers"] = {
            index: labels[index][1] for index in sorted(labels) if labels[index][1]
        }
        found["centroids"] = self.centroids.get(session_id, (None, ()))[1]
        found["has_all_segments"] = self._has_all_segments(session_id)
        return found

    def _has_all_segments(self, session_id: str) -> bool:
        whole = sum(not row["provisional"] for row in self.segments.get(session_id, {}).values())
        return (self.sessions[session_id].segment_count or 0) <= whole

    def mark_lost(self, now_s: float, after_s: float) -> None:
        """As ``persistence.chores.mark_lost``."""
        for row in self.sessions.values():
            if row.status == "active" and row.heard_s < now_s - after_s:
                row.status = "lost"
                row.completed_at_ms = now_s * 1000
        self._erase_centroids(self.sessions)

    def _counts(self, entry: Entry, live: dict[str, int]) -> bool:
        if entry.session_id not in live:
            return False
        stale = entry.generation < live[entry.session_id]
        if stale and not isinstance(entry.body, TIMELESS):
            self.stale_rows += entry.rows
            if isinstance(entry.body, SegmentCopy):
                self.stale_segments.add((entry.session_id, entry.body.seq))
            elif isinstance(entry.body, SessionFinished):
                self.stale_ends.add(entry.session_id)
            return False
        return True

    def _started(self, entries: list[Entry]) -> None:
        for entry in entries:
            body, row = entry.body, self.sessions[entry.session_id]
            assert isinstance(body, SessionStarted)
            if row.started and row.created_at_ms <= body.started_at_ms:
                continue
            row.started = True
            row.created_at_ms = body.started_at_ms
            row.resume_token_hash = body.resume_token_hash
            row.model = body.model
            row.generation = max(row.generation, entry.generation)

    def _chunks(self, entries: list[Entry]) -> None:
        for entry in entries:
            assert isinstance(entry.body, ChunkDetails)
            self.chunks |= {(entry.session_id, c.chunk_index) for c in entry.body.chunks}

    def _segments(self, entries: list[Entry]) -> None:
        for from_gateway in (False, True):
            newest: dict[tuple[str, int], Entry] = {}
            for entry in entries:
                assert isinstance(entry.body, SegmentCopy)
                key = (entry.session_id, entry.body.seq)
                if entry.from_gateway is from_gateway and (
                    key not in newest or newest[key].generation < entry.generation
                ):
                    newest[key] = entry
            for (session_id, seq), entry in newest.items():
                rows = self.segments.setdefault(session_id, {})
                old = rows.get(seq)
                if (
                    old is None
                    or old["generation"] < entry.generation
                    or (from_gateway and old["generation"] == entry.generation)
                ):
                    rows[seq] = _segment_row(entry)

    def _finished(self, entries: list[Entry]) -> None:
        for entry in entries:
            body, row = entry.body, self.sessions[entry.session_id]
            assert isinstance(body, SessionFinished)
            present = (RANKS.index(row.status), row.completed_at_ms)
            if present < (RANKS.index(body.status), body.completed_at_ms):
                row.status, row.text = body.status, body.text
                row.duration_ms, row.chunk_count = body.duration_ms, body.chunk_count
                row.segment_count = body.segment_count
                row.completed_at_ms = body.completed_at_ms
            if entry.generation and body.status != "interrupted":
                rows = self.segments.get(entry.session_id, {})
                for seq in [s for s in rows if s >= first_superseded(body)]:
                    if rows[seq]["generation"] < entry.generation:
                        del rows[seq]
                labels = self.labels.get(entry.session_id, {})
                for seq in [s for s in labels if s >= first_superseded(body)]:
                    if labels[seq][0][0] < entry.generation:
                        del labels[seq]
        self._erase_centroids(entry.session_id for entry in entries)

    def _speakers(self, entries: list[Entry]) -> None:
        for entry in entries:
            body, version = entry.body, (entry.generation, entry.key.seq)
            assert isinstance(body, SpeakerLabels)
            labels = self.labels.setdefault(entry.session_id, {})
            for index, speaker in enumerate(body.speakers, body.first_segment_index):
                if index not in labels or labels[index][0] < version:
                    labels[index] = version, speaker
            before = self.centroids.get(entry.session_id)
            if body.centroids and (before is None or before[0] < version):
                self.centroids[entry.session_id] = version, body.centroids
        self._erase_centroids(entry.session_id for entry in entries)

    def _erase_centroids(self, session_ids: Iterable[str]) -> None:
        """As ``persistence.speakers``. Interrupted sessions keep theirs here for any time."""
        for session_id in session_ids:
            if self.sessions[session_id].status not in ("active", "interrupted"):
                self.centroids.pop(session_id, None)

    def _resumed(self, entries: list[Entry]) -> None:
        for entry in entries:
            body, row = entry.body, self.sessions[entry.session_id]
            assert isinstance(body, SessionResumed)
            own = row.resume_token_hash == body.resume_token_hash
            over = row.status in ("completed", "failed")
            over = over and self._has_all_segments(entry.session_id)
            if (not row.started or (own and not over)) and row.generation < entry.generation:
                row.generation, row.gateway_id = entry.generation, body.gateway_id
                row.status, row.completed_at_ms = "active", float("-inf")

    def _deleted(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.sessions[entry.session_id] = SessionRow(status="deleted")
            self.segments.pop(entry.session_id, None)
            self.labels.pop(entry.session_id, None)
            self.centroids.pop(entry.session_id, None)
            self.chunks = {chunk for chunk in self.chunks if chunk[0] != entry.session_id}


def _segment_row(entry: Entry) -> Segment:
    assert isinstance(entry.body, SegmentCopy)
    row: Segment = json.loads(
        as_json([segment_row(entry.session_id, entry.generation, entry.body)])
    )[0]
    return row


def _result_of(row: Mapping[str, Any]) -> Result:
    """As ``persistence.segments.SELECT``."""
    code, message = row["error_code"], row["error_message"]
    error = None if code is None else {"code": code, "message": message}
    fields = {**row, "seq": row["segment_index"], "partial": False, "error": error}
    return msgspec.convert(fields, Result)
