"""A session's transcript as a file: text, SRT or WebVTT."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Response

from gateway.dialects.subtitles import Segment, TimedText, to_srt, to_vtt
from gateway.session.transcript import join_texts

TranscriptFormat = Literal["json", "text", "srt", "vtt"]


def transcript_response(session: dict[str, Any], wanted: TranscriptFormat) -> Response:
    """``session``, in the shape of ``GET /api/v1/session/{id}``, as a file. Segments without a
    text are left out."""
    segments = [_segment(row) for row in session["segments"] if row["text"]]
    if wanted == "srt":
        return Response(to_srt(segments), media_type="application/x-subrip; charset=utf-8")
    if wanted == "vtt":
        return Response(to_vtt(segments), media_type="text/vtt; charset=utf-8")
    text = join_texts(segment.text for segment in segments)
    return Response(text + "\n", media_type="text/plain; charset=utf-8")


def _segment(row: dict[str, Any]) -> Segment:
    return Segment(
        text=row["text"],
        start_ms=row["start_ms"],
        end_ms=row["end_ms"],
        words=tuple(
            TimedText(text=token["text"], start_ms=token["start_ms"], end_ms=token["end_ms"])
            for token in row["tokens"]
        ),
    )
