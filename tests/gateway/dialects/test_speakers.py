from __future__ import annotations

from gateway.dialects.speakers import speaker_name, with_speakers
from gateway.session import events as e


def segment(index: int, speaker: int | None) -> e.SegmentText:
    return e.SegmentText(
        session_id="s",
        chunk_index=0,
        segment_index=index,
        start_ms=0,
        end_ms=1,
        text="one",
        speaker=speaker,
    )


def end(*speakers: int | None) -> e.Finished:
    return e.Finished(
        session_id="s", text="", duration_ms=1, chunk_count=1, stored=True, speakers=speakers
    )


def test_the_end_corrects_speakers() -> None:
    segments = [segment(0, 1), segment(2, 2), segment(3, None)]
    corrected = with_speakers(segments, end(1, None, 1, 2))
    assert [each.speaker for each in corrected] == [1, 1, 2]


def test_without_speakers_segments_stay() -> None:
    finished = e.Finished(session_id="s", text="", duration_ms=1, chunk_count=1, stored=True)
    assert with_speakers([segment(0, None)], finished) == [segment(0, None)]


def test_a_speaker_has_a_name() -> None:
    assert speaker_name(2) == "Speaker 2"
