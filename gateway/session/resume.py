"""Core: whether a session can be resumed from its stored rows, and its resume point."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.session import events as e
from gateway.session.speakers import UNKNOWN
from gateway.session.transcript import join_texts
from wire.messages import SAMPLE_RATE_HZ, Result
from wire.records import SpeakerCentroid

NOT_RESUMABLE = e.Problem(code="not_resumable", message="this session cannot be resumed")
"""The same for every reason, so that it does not reveal which sessions exist."""
UNAVAILABLE = e.Problem(
    code="resume_unavailable", message="the session cannot be resumed now, try again later"
)


def has_end(stored: dict[str, Any]) -> bool:
    """Whether the end and as many segments as it counts are stored."""
    return stored["status"] in ("completed", "failed") and bool(stored["has_all_segments"])


def is_complete(stored: dict[str, Any]) -> bool:
    """Whether the end and every segment are stored. A killed gateway may have stored the end
    without a segment; or without its copy of one that two workers spelled differently, which a
    living gateway may store later."""
    if not has_end(stored):
        return False
    joined = join_texts(result.text or "" for result in stored["segments"])
    return not stored["text"] or stored["text"] == joined


def text_of(stored: dict[str, Any]) -> str:
    """The stored session's text; empty until its end is stored."""
    text: str | None = stored["text"]
    if not text and stored["status"] not in ("active", "lost", "deleted"):
        # Too long for the record of the end, or stored after it.
        return join_texts(result.text or "" for result in stored["segments"])
    return text or ""


def token_hash(resume_token: str) -> str:
    """The stored form of a token, so that the database holds no credentials."""
    return hashlib.sha256(resume_token.encode()).hexdigest()


def same_hash(one: str, other: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """The point at which a session begins on this gateway. The default is a new session."""

    generation: int = 0
    """Number of takeovers of the session, including this one."""
    resumed: bool = False
    results: tuple[Result, ...] = ()
    """Stored results, from segment 0. They are not recognised again."""
    next_chunk_index: int = 0
    """Decoding restarts at this chunk …"""
    first_sample: int = 0
    """… whose audio begins at this sample of the session's timeline."""
    recognised_samples: int = 0
    """Audio before this is in ``results`` and only warms up speech detection."""
    recognised_chunk_index: int = -1
    """Mode chunk: chunks up to this index are in ``results``."""
    speakers: tuple[int, ...] = ()
    """Labels of ``results``, see ``gateway.session.speakers``; empty: not asked for."""
    centroids: tuple[SpeakerCentroid, ...] = ()
    """The voices of speakers; empty if none are stored."""
    speaker_max: int = 0
    """The highest label given, also to segments that are recognised again."""
    started_at_ms: int | None = None
    model: str = ""
    """Served name of its model; ``""``: stored by a release without models."""
    final: e.Finished | None = None
    """The final result of a complete session."""

    def without_results(self) -> ResumePoint:
        """The same without what grows with the session."""
        return replace(self, results=(), speakers=(), centroids=())


NEW_SESSION = ResumePoint()


def resume_point_of(stored: dict[str, Any], generation: int) -> ResumePoint:
    """The resume point of a session, from ``SessionReader.resume_state``, in its new
    ``generation``."""
    segments: Sequence[Result] = stored["segments"]
    labels: dict[int, int] = stored["speakers"]
    beginning = ResumePoint(
        generation=generation,
        resumed=True,
        started_at_ms=stored["created_at_ms"],
        centroids=stored["centroids"],
        speaker_max=max(labels.values(), default=0),
        model=stored["model"],
    )
    if is_complete(stored):
        final = e.Finished(
            session_id=stored["session_id"],
            # The text of the end is missing if it was too long for its record.
            text=join_texts(result.text or "" for result in segments),
            duration_ms=stored["duration_ms"] or 0,
            chunk_count=stored["chunk_count"] or 0,
            stored=True,
        )
        return replace(
            beginning,
            results=tuple(segments),
            speakers=_labels_of(segments, labels),
            next_chunk_index=final.chunk_count,
            final=final,
        )
    results: list[Result] = []
    for result in segments:
        # Segments after a gap, and from a provisional one on, are recognised again.
        if result.seq != len(results) or result.provisional:
            break
        results.append(result)
    if not results:
        return beginning
    last = results[-1]
    return replace(
        beginning,
        results=tuple(results),
        speakers=_labels_of(results, labels),
        next_chunk_index=last.resume_chunk_index,
        first_sample=last.resume_sample,
        recognised_samples=last.end_ms * SAMPLE_RATE_HZ // 1000,
        recognised_chunk_index=last.last_chunk_index,
    )


def _labels_of(results: Sequence[Result], labels: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(labels.get(result.seq, UNKNOWN) for result in results) if labels else ()


def is_refused(stored: dict[str, Any] | None, shown_hash: str) -> bool:
    """Whether a client whose token has ``shown_hash`` may not resume the session, by
    ``SessionReader.owner_state``."""
    if stored is None:
        return False
    wrong_token = stored["started"] and not same_hash(stored["resume_token_hash"], shown_hash)
    return stored["status"] == "deleted" or wrong_token


def needs_claim(stored: dict[str, Any] | None) -> bool:
    """Whether a gateway must claim the session first: nothing more is stored of a complete one."""
    return stored is None or not (stored["started"] and is_complete(stored))


def answer_after_claim(
    stored: dict[str, Any] | None, shown_hash: str, generation: int, gateway_id: str
) -> ResumePoint | e.Problem:
    """The answer once the claim of ``gateway_id`` for ``generation`` is stored, or without one for
    a session that needs none."""
    if stored is None:
        return UNAVAILABLE
    if is_refused(stored, shown_hash):
        return NOT_RESUMABLE
    claimed = (stored["generation"], stored["gateway_id"]) == (generation, gateway_id)
    if needs_claim(stored) and not claimed:
        return UNAVAILABLE  # Another gateway has claimed it in the meantime.
    if not stored["started"]:
        return ResumePoint(generation=generation)
    return resume_point_of(stored, stored["generation"])
