"""Core: one answer for each chunk that contains one whole file, for all segments that end in it.

A segment belongs to the chunk in which it ends. Speech that a recorder cut at the end of a file
continues in the next one (``gateway.session.segmenter``), so a file is complete once no utterance
that began in it is open.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from gateway.session.events import SegmentText, SilentFile
from gateway.session.recognised import confidence, emotion, main_language, sound_events
from gateway.session.transcript import join_texts


class _File(Struct):
    start_ms: int
    end_ms: int | None = None
    """None: a part of the chunk is not decoded yet."""
    next_segment_index: int | None = None
    """The segments before it contain those of the file; None: further ones may."""
    segments: list[SegmentText] = []
    failed: bool = False
    sent: bool = False
    last_segment_index: int = -1

    def is_complete(self, delivered: int) -> bool:
        return self.next_segment_index is not None and self.next_segment_index <= delivered


class WholeFiles:
    """The files whose answer is not written to the client yet, in order."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._files: dict[int, _File] = {}

    def __len__(self) -> int:
        return len(self._files)

    def begin(self, chunk_index: int, start_ms: int) -> None:
        """The chunk begins with a file."""
        self._files[chunk_index] = _File(start_ms)

    def end(self, chunk_index: int, end_ms: int | None) -> list[SegmentText]:
        """The chunk is decoded, and the file ends with it; None: it does not. Then returns the
        segments that were taken so far."""
        file = self._files.get(chunk_index)
        if file is None:
            return []
        if end_ms is None:
            return self._files.pop(chunk_index).segments
        file.end_ms = end_ms
        return []

    def complete(self, until_ms: int, next_segment_index: int) -> None:
        """No later utterance begins before ``until_ms``; the next one has
        ``next_segment_index``."""
        for file in self._files.values():
            if file.end_ms is None:
                return
            if file.next_segment_index is None and file.end_ms <= until_ms:
                file.next_segment_index = next_segment_index

    def holds(self, chunk_index: int) -> bool:
        """Whether the segments that end in the chunk are sent as one."""
        return chunk_index in self._files

    def take(self, segment: SegmentText) -> None:
        """Keep a segment of a chunk that it ``holds``."""
        file = self._files[segment.chunk_index]
        file.segments.append(segment)
        file.last_segment_index = segment.segment_index

    def note_failure(self, chunk_index: int) -> None:
        """A segment of the chunk failed. The client gets an error for it."""
        if chunk_index in self._files:
            self._files[chunk_index].failed = True

    def note_written(self, segment_index: int) -> None:
        """The client has the segments up to this one."""
        for chunk_index, file in list(self._files.items()):
            if not file.sent or file.last_segment_index > segment_index:
                return
            del self._files[chunk_index]

    def begin_again(self, segment_index: int) -> None:
        """The client has resumed: the caller passes the segments from this one on again."""
        for file in self._files.values():
            file.segments = [s for s in file.segments if s.segment_index < segment_index]
            file.sent = file.sent and file.last_segment_index < segment_index

    def due(self, chunk_index: int, delivered: int) -> list[SegmentText | SilentFile]:
        """Answers to send now, of the files before this chunk, in which a segment has ended, and of
        those all of whose segments are among the first ``delivered``."""
        answers: list[SegmentText | SilentFile] = []
        for index, file in list(self._files.items()):
            if file.sent:
                continue
            if index >= chunk_index and not file.is_complete(delivered):
                break
            file.sent = True
            # If all segments failed, the errors are the answer.
            if file.segments or not file.failed:
                answers.append(self._answer(index, file))
            if not file.segments:
                del self._files[index]
        return answers

    def _answer(self, chunk_index: int, file: _File) -> SegmentText | SilentFile:
        segments = file.segments
        if not segments:
            assert file.end_ms is not None
            return SilentFile(
                session_id=self._session_id,
                chunk_index=chunk_index,
                start_ms=file.start_ms,
                end_ms=file.end_ms,
            )
        first, last = segments[0], segments[-1]
        if first is last:
            return first
        speakers = {segment.speaker for segment in segments}
        return replace(
            last,
            first_segment_index=first.segment_index,
            start_ms=first.start_ms,
            text=join_texts(segment.text for segment in segments),
            tokens=tuple(token for segment in segments for token in segment.tokens),
            speaker=speakers.pop() if len(speakers) == 1 else None,
            language=main_language(segments),
            confidence=confidence(segments),
            emotion=emotion(segments),
            events=sound_events(segments),
        )
