"""Core: the answers to one session's client, over all its connections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.session import events as e
from gateway.session.transcript_store import TranscriptStore
from gateway.session.whole_files import WholeFiles
from wire.messages import Result

MISSED_PROBLEMS_MAX = 100
"""Error answers kept for a disconnected client. Further ones are only counted."""
CONTEXT_CHARS_MAX = 120
"""End of a text that the next job gets as its context, enough for a punctuation model's 20 words.
"""


class Delivery:
    """Sends answers while the client is connected, and missed answers when it resumes.

    Missed answers are the texts, which ``results`` keeps anyway, and errors. Acknowledgements and
    partial results are not sent again: ``Resumed`` replaces them.
    """

    def __init__(
        self, session_id: str, results: Iterable[Result] = (), speakers: Sequence[int] = ()
    ) -> None:
        """``results``: of a session taken over from another gateway. ``speakers``: labels of all
        segments; the caller adds each label before its result, and may correct labels."""
        self.connected = True
        self.detached_at_s = 0.0
        self.results = TranscriptStore()
        """Delivered results, in segment order from 0."""
        self._text_end = ""
        for result in results:
            self._keep(result)
        self._session_id = session_id
        self._speakers = speakers
        self._written = 0
        self._sent_from = 0
        self._missed: list[e.Problem] = []
        self._files = WholeFiles(session_id)

    def send(self, answer: e.Answer) -> list[e.Action]:
        if self.connected:
            return [answer]
        if isinstance(answer, e.Problem):
            if len(self._missed) >= MISSED_PROBLEMS_MAX:
                return [e.Count(discarded="answer", reason="client_away")]
            self._missed.append(answer)
        return []

    def send_result(self, result: Result) -> list[e.Action]:
        """Deliver the next result in segment order."""
        assert result.seq == len(self.results)
        self._keep(result)
        return self._send_segment(result) if self.connected else []

    def begin_file(self, chunk_index: int, start_ms: int) -> None:
        """The chunk begins with a file. If it contains the whole file, it gets one answer."""
        self._files.begin(chunk_index, start_ms)

    @property
    def awaits_files(self) -> bool:
        """Whether a chunk that begins with a file has no answer yet."""
        return bool(self._files)

    def end_file(self, chunk_index: int, end_ms: int | None) -> list[e.Action]:
        """The chunk is decoded; ``end_ms``: it has held one whole file, which ends here."""
        segments = self._files.end(chunk_index, end_ms)
        return [*segments] if self.connected else []

    def complete_files(self, until_ms: int, next_segment_index: int) -> list[e.Action]:
        """No later utterance begins before ``until_ms``; the next one has this index."""
        self._files.complete(until_ms, next_segment_index)
        return self.send_files()

    def send_files(self) -> list[e.Action]:
        """Send the answers of files all of whose segments are delivered."""
        return [*self._files.due(0, len(self.results))] if self.connected else []

    def speaker(self, segment_index: int) -> int | None:
        """The speaker of a delivered segment; None: unknown, or not asked for."""
        return self._speakers[segment_index] or None if self._speakers else None

    def text_before(self, seq: int) -> str:
        """The end of the text of the segment before ``seq``; empty until it is delivered."""
        return self._text_end if seq == len(self.results) else ""

    def _keep(self, result: Result) -> None:
        self.results.append(result)
        self._text_end = (result.text or "")[-CONTEXT_CHARS_MAX:]

    def note_written(self, segment_index: int) -> None:
        """The answer for this segment was written to the client's socket."""
        self._written = max(self._written, segment_index + 1)
        self._files.note_written(segment_index)

    def detach(self, now_s: float) -> None:
        self.connected = False
        self.detached_at_s = now_s

    def attach(self, next_segment_index: int | None) -> int:
        """The client has resumed. Returns the index of the first segment to send: its own
        ``next_segment_index``, or by default the first that was not written to a socket."""
        self.connected = True
        self._sent_from = self._written if next_segment_index is None else next_segment_index
        self._files.begin_again(self._sent_from)
        return self._sent_from

    def missed(self) -> list[e.Action]:
        """After ``attach``: the answers that the client missed."""
        actions = [a for r in self.results.since(self._sent_from) for a in self._send_segment(r)]
        missed, self._missed = self._missed, []
        return [*actions, *self.send_files(), *missed]

    def _send_segment(self, result: Result) -> list[e.Action]:
        if result.seq < self._sent_from:
            return []
        before: list[e.Action] = [*self._files.due(result.last_chunk_index, result.seq)]
        if result.error is not None:
            self._files.note_failure(result.last_chunk_index)
            problem = e.Problem(
                code=result.error.code,
                message=result.error.message,
                chunk_index=result.last_chunk_index,
                segment_index=result.seq,
            )
            return [*before, problem]
        segment = e.SegmentText(
            session_id=self._session_id,
            chunk_index=result.last_chunk_index,
            segment_index=result.seq,
            start_ms=result.start_ms,
            end_ms=result.end_ms,
            text=result.text or "",
            tokens=result.tokens,
            speaker=self.speaker(result.seq),
            language=result.language,
            confidence=result.confidence,
            emotion=result.emotion,
            events=result.events,
        )
        if not self._files.holds(segment.chunk_index):
            return [*before, segment]
        self._files.take(segment)
        return before
