"""Core: SRT and WebVTT from the segments of a session, by the times of words if the model returns
them.

Lines and cues follow broadcasters' guidelines: two lines of 42 columns (a CJK character has two),
at most seven seconds on the screen, and no overlapping cues.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.dialects.speakers import speaker_name
from gateway.session import events as e
from gateway.session.transcript import gap, is_cjk, word_spans
from wire.messages import Token

LINE_COLUMNS_MAX = 42
CUE_LINES_MAX = 2
CUE_MS_MAX = 7_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The text of a stored utterance, or a cue. ``tokens`` are the words of the model, empty if it
    returns no times."""

    text: str
    start_ms: int
    end_ms: int
    tokens: tuple[Token, ...] = ()
    speaker: int | None = None
    """None: unknown."""


Segments = Iterable[Segment | e.SegmentText]


def to_srt(segments: Segments) -> str:
    """Return a SubRip file. It has no field for speakers: a segment's text begins with its own."""
    blocks = [
        # SubRip has no escapes, and an arrow in the text would look like a line of times.
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        + cue.text.replace("-->", "->")
        + "\n"
        for number, cue in enumerate(cues(segments, named=True), 1)
    ]
    return "\n".join(blocks)


def to_vtt(segments: Segments) -> str:
    """Return a WebVTT file (W3C WebVTT 1). Speakers are its voices."""
    blocks = ["WEBVTT\n"]
    for cue in cues(segments):
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        text = text if cue.speaker is None else f"<v {speaker_name(cue.speaker)}>{text}"
        blocks.append(f"{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n{text}\n")
    return "\n".join(blocks)


def cues(segments: Segments, *, named: bool = False) -> list[Segment]:
    """Return cues of at most ``CUE_LINES_MAX`` lines, in order, without overlap. ``named``: the
    text of a segment begins with its speaker."""
    found: list[Segment] = []
    for segment in segments:
        spoken = timed_words(segment)
        if named and spoken and segment.speaker is not None:
            text = f"{speaker_name(segment.speaker)}: {spoken[0].text}"
            spoken[0] = replace(spoken[0], text=text)
        for words in _groups(spoken):
            start_ms = max(words[0].start_ms, found[-1].end_ms if found else 0)
            # Rounding may leave no time; a cue needs some.
            end_ms = max(words[-1].end_ms, start_ms + 1)
            text = "\n".join(_lines(words))
            found.append(
                Segment(text=text, start_ms=start_ms, end_ms=end_ms, speaker=segment.speaker)
            )
    return found


def timed_words(segment: Segment | e.SegmentText | e.PartialText) -> list[Token]:
    """Return the words of the segment's text with times. If the words of the model do not match
    (there are none, or punctuation was added later), each gets its share of the segment's time."""
    words = _words(segment.text)
    if len(words) == len(segment.tokens):
        timed = zip(words, segment.tokens, strict=True)
        return [replace(token, text=word) for word, token in timed]
    total = sum(_columns(word) for word in words)
    duration_ms = segment.end_ms - segment.start_ms
    timed_ones: list[Token] = []
    done = 0
    for word in words:
        start_ms = segment.start_ms + duration_ms * done // total
        done += _columns(word)
        end_ms = segment.start_ms + duration_ms * done // total
        timed_ones.append(Token(text=word, start_ms=start_ms, end_ms=end_ms))
    return timed_ones


def _words(text: str) -> list[str]:
    """Return the words, with the punctuation that follows them."""
    words: list[str] = []
    before = -1
    for begin, end in word_spans(text):
        word = text[begin:end]
        is_mark = all(unicodedata.category(character)[0] == "P" for character in word)
        if is_mark and begin == before:
            words[-1] += word
        else:
            words.append(word)
        before = end
    return words


def _groups(words: Sequence[Token]) -> list[list[Token]]:
    """Return groups of words, one for each cue."""
    groups: list[list[Token]] = []
    for word in words:
        group = groups[-1] if groups else []
        fits = len(_lines([*group, word])) <= CUE_LINES_MAX
        if group and fits and word.end_ms - group[0].start_ms <= CUE_MS_MAX:
            group.append(word)
        else:
            groups.append([word])
    return groups


def _lines(words: Sequence[Token]) -> list[str]:
    lines: list[str] = []
    for word in words:
        joined = lines[-1] + gap(lines[-1], word.text) + word.text if lines else word.text
        if lines and _columns(joined) <= LINE_COLUMNS_MAX:
            lines[-1] = joined
        else:
            lines.append(word.text)
    return lines


def _columns(text: str) -> int:
    return sum(2 if is_cjk(character) else 1 for character in text)


def _clock(time_ms: int, mark: str) -> str:
    seconds, ms = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{ms:03}"
