"""SRT and WebVTT: valid files, readable cues."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.subtitles import (
    CUE_LINES_MAX,
    CUE_MS_MAX,
    LINE_COLUMNS_MAX,
    Segment,
    cues,
    timed_words,
    to_srt,
    to_vtt,
)
from gateway.session.transcript import is_cjk
from wire.messages import Token

HOUR_MS = 3_600_000


def columns(line: str) -> int:
    return sum(2 if is_cjk(character) else 1 for character in line)


def test_a_file_of_each_kind() -> None:
    segments = [
        Segment(text="one two", start_ms=61_001, end_ms=62_000),
        Segment(text="", start_ms=62_000, end_ms=63_000),
        Segment(text="三四", start_ms=101 * HOUR_MS, end_ms=101 * HOUR_MS + 999),
    ]
    assert to_srt(segments) == (
        "1\n00:01:01,001 --> 00:01:02,000\none two\n\n2\n101:00:00,000 --> 101:00:00,999\n三四\n"
    )
    assert to_vtt(segments) == (
        "WEBVTT\n\n00:01:01.001 --> 00:01:02.000\none two\n\n"
        "101:00:00.000 --> 101:00:00.999\n三四\n"
    )


def test_speakers_are_named() -> None:
    segments = [
        Segment(text="one", start_ms=0, end_ms=1_000, speaker=1),
        Segment(text="word " * 30, start_ms=1_000, end_ms=5_000, speaker=2),
        Segment(text="three", start_ms=6_000, end_ms=7_000),
    ]
    srt, vtt = to_srt(segments), to_vtt(segments)
    assert "\nSpeaker 1: one\n" in srt and "\n<v Speaker 1>one\n" in vtt
    # Each cue of an utterance has its voice; its text begins with the name once.
    assert srt.count("Speaker 2: word") == 1
    assert vtt.count("<v Speaker 2>word") == 2
    assert "\nthree\n" in srt and "\nthree\n" in vtt
    assert all(columns(line) <= LINE_COLUMNS_MAX for line in srt.splitlines())


def test_no_speech() -> None:
    assert to_srt([]) == ""
    assert to_vtt([Segment(text=" ", start_ms=0, end_ms=9)]) == "WEBVTT\n"


def test_markup_is_escaped() -> None:
    segments = [Segment(text="a --> b <c> &", start_ms=0, end_ms=1_000)]
    assert to_srt(segments).count("-->") == 1
    assert "a --&gt; b &lt;c&gt; &amp;" in to_vtt(segments)


def test_cues_begin_and_end_with_their_words() -> None:
    words = tuple(Token(text="一", start_ms=1_000 * n, end_ms=1_000 * n + 300) for n in range(12))
    segment = Segment(text="一" * 12, start_ms=0, end_ms=20_000, tokens=words)
    first, second = cues([segment])
    assert (first.start_ms, first.end_ms, first.text) == (0, 6_300, "一" * 7)
    assert (second.start_ms, second.end_ms, second.text) == (7_000, 11_300, "一" * 5)


def test_punctuation_belongs_to_the_word_before_it() -> None:
    words = tuple(Token(text=t, start_ms=n, end_ms=n + 1) for n, t in enumerate("一二"))
    found = timed_words(Segment(text="一，二。", start_ms=0, end_ms=9, tokens=words))
    assert [(word.text, word.start_ms) for word in found] == [("一，", 0), ("二。", 1)]


def test_without_times_each_word_has_its_share() -> None:
    found = timed_words(Segment(text="二nine", start_ms=1_000, end_ms=1_600))
    assert [(word.start_ms, word.end_ms) for word in found] == [(1_000, 1_200), (1_200, 1_600)]


def test_lines_are_filled_and_no_longer() -> None:
    text = "word " * 30 + "字" * 60
    shown = cues([Segment(text=text, start_ms=0, end_ms=20_000)])
    lines = [line for cue in shown for line in cue.text.split("\n")]
    assert all(columns(line) <= LINE_COLUMNS_MAX for line in lines)
    assert "word word word word word word word word" in lines
    assert "字" * 21 in lines


SEGMENTS = st.lists(
    st.builds(
        lambda text, start_ms, duration_ms, words: Segment(
            text=text,
            start_ms=start_ms,
            end_ms=start_ms + duration_ms,
            tokens=tuple(
                Token(text="x", start_ms=start_ms + a, end_ms=start_ms + a + b) for a, b in words
            ),
        ),
        st.text(alphabet="一二ab ，.-><&", max_size=120),
        st.integers(0, 3 * HOUR_MS),
        st.integers(0, 20_000),
        st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 500)), max_size=12),
    ),
    max_size=5,
)


@given(SEGMENTS)
def test_any_segments_give_cues_in_order_without_overlap(segments: list[Segment]) -> None:
    found = cues(segments)
    assert all(cue.start_ms < cue.end_ms for cue in found)
    assert all(before.end_ms <= after.start_ms for before, after in pairwise(found))
    for cue in found:
        lines = cue.text.split("\n")
        assert 1 <= len(lines) <= CUE_LINES_MAX
        assert all(columns(line) <= LINE_COLUMNS_MAX or " " not in line for line in lines)
    shown = "".join(cue.text for cue in found)
    said = "".join(segment.text for segment in segments)
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", said)
    srt = to_srt(segments)
    assert srt.count(" --> ") == len(found) == to_vtt(segments).count(" --> ")


@given(st.integers(1, 60), st.integers(1, 20_000))
def test_a_cue_lasts_no_longer_than_can_be_read_unless_a_word_does(
    count: int, duration_ms: int
) -> None:
    for cue in cues([Segment(text="字" * count, start_ms=0, end_ms=duration_ms)]):
        assert cue.end_ms - cue.start_ms <= CUE_MS_MAX or len(cue.text) == 1
