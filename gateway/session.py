"""SANS-IO core of one client session: events in, actions out (see ``gateway.events``).

The life of a session is the table ``life_cycle.LEGAL``: which client events each state takes. A
client's event out of turn is answered ``bad_state``; an internal event out of turn is our own bug
and asserts. Dialects translate, ``gateway.connection`` performs; neither decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from gateway import events as e
from gateway.answers import misplaced_chunk, out_of_turn, segment_answer, wrong_session
from gateway.chunks import ChunkLedger
from gateway.life_cycle import CLIENT_EVENTS, LEGAL, SessionLimits, State
from gateway.partials import PartialPacing
from gateway.segmenter import SegmenterConfig
from gateway.segments import Segments
from gateway.storage_log import StorageLog
from gateway.timeline import samples_to_ms
from gateway.transcript import join_texts
from gateway.utterances import CutUtterance, UtteranceCutter
from wire.messages import Job, Result
from wire.records import ChunkDetail

ACK_EVERY_CHUNKS = 10
ACK_EVERY_S = 1.0
"""Binary frames are acknowledged cumulatively, after so many or so long."""
CLOSE_GOING_AWAY = 1001


class Session:
    """One session. Feed it with ``handle``; perform the actions in order.

    The caller's duties: answer ``DecodeChunk``, ``FinishAudio`` and ``DetectSpeech`` with their
    events before the next client event, send ``Tick`` about ten times a second,
    and stop reading the client while ``wants_audio`` is false.
    """

    def __init__(
        self,
        limits: SessionLimits,
        segmenter: SegmenterConfig,
        *,
        resume_token: str,
        client: str,
        wall_ms: Callable[[], int],
    ) -> None:
        self.limits = limits
        self.state = State.NEW
        self.start: e.Start | None = None
        self.started_at_ms = 0
        self._client = client
        self._connected = True
        self._resume_token = resume_token
        self._wall_ms = wall_ms
        self._segmenter_config = segmenter
        self._cutter = UtteranceCutter(segmenter, joints_matter=False)
        self._chunks = ChunkLedger()
        self._segments = Segments(limits.segment_deadline_ms)
        self._delivered: list[Result] = []
        self._storage = StorageLog("")
        self._decoding: e.DecodeChunk | None = None
        self._audio_over = False
        self._busy = False
        self._joint_wait_until_s: float | None = None
        self._chunk_audio_ms = 0
        self._partials = PartialPacing(limits.partial_every_ms)
        self._confirm_until_s = 0.0
        self._handlers: dict[type, Callable[[Any, float], list[e.Action]]] = {
            e.Start: self._on_start,
            e.Chunk: self._on_chunk,
            e.Finish: self._on_finish,
            e.Disconnected: self._on_disconnected,
            e.AudioDecoded: self._on_audio_decoded,
            e.AudioFailed: self._on_audio_failed,
            e.AudioFinished: self._on_audio_finished,
            e.SpeechProbabilities: self._on_probabilities,
            e.ResultArrived: self._on_result,
            e.KeysStored: self._on_stored,
            e.BrokerRestarted: self._on_broker_restarted,
            e.Tick: self._on_tick,
            e.Deleted: self._on_deleted,
        }

    # ----------------------------------------------------------------------------- what callers ask

    @property
    def session_id(self) -> str:
        return self.start.session_id if self.start is not None else ""

    @property
    def wants_audio(self) -> bool:
        """False: too much audio awaits results; leave the client's bytes in its socket."""
        return self._segments.unanswered_audio_ms <= self.limits.unanswered_audio_ms_max

    @property
    def duration_ms(self) -> int:
        return samples_to_ms(self._cutter.timeline.total_samples)

    @property
    def chunk_count(self) -> int:
        return self._chunks.next_index

    @property
    def delivered(self) -> tuple[Result, ...]:
        """Results told so far, in segment order."""
        return tuple(self._delivered)

    @property
    def text(self) -> str:
        """The transcript so far."""
        return join_texts(result.text or "" for result in self._delivered)

    def handle(self, event: e.Event, now_s: float) -> list[e.Action]:
        """Take one event; returns what is to be done, in order."""
        if isinstance(event, CLIENT_EVENTS) and type(event) not in LEGAL[self.state]:
            return self._tell(out_of_turn(event, self.state))
        if self.state is State.DONE:
            return []
        return self._handlers[type(event)](event, now_s)

    # ---------------------------------------------------------------------------------- the client

    def _on_start(self, event: e.Start, now_s: float) -> list[e.Action]:
        self.start = event
        self.state = State.ACTIVE
        self.started_at_ms = self._wall_ms()
        self._chunks.acknowledge(now_s)
        self._cutter = UtteranceCutter(self._segmenter_config, joints_matter=event.mode == "auto")
        self._storage = StorageLog(event.session_id)
        started = self._storage.started(
            event, client=self._client, started_at_ms=self.started_at_ms
        )
        answer = e.Started(
            session_id=event.session_id, resume_token=self._resume_token, next_chunk_index=0
        )
        return [e.SubmitRecord(record=started), *self._tell(answer)]

    def _on_chunk(self, event: e.Chunk, now_s: float) -> list[e.Action]:
        assert self.start is not None and not self._busy
        index = self._chunks.next_index if event.chunk_index is None else event.chunk_index
        if event.session_id not in (None, self.session_id):
            return self._tell(wrong_session(index))
        expected = self._chunks.next_index
        verdict = self._chunks.receive(index, event.data)
        if verdict == "repeated":
            return self._tell(e.ChunkReceived(chunk_index=index))
        if verdict != "new":
            return self._tell(misplaced_chunk(verdict, index, expected))
        self._joint_wait_until_s = None
        self._busy = True
        self._decoding = e.DecodeChunk(
            chunk_index=index, data=event.data, whole=self.start.mode == "chunk"
        )
        acks = event.chunk_index is not None or self._chunks.unacked >= ACK_EVERY_CHUNKS
        return [*(self._ack(now_s) if acks else []), self._decoding]

    def _ack(self, now_s: float) -> list[e.Action]:
        index = self._chunks.acknowledge(now_s)
        return [] if index is None else self._tell(e.ChunkReceived(chunk_index=index))

    def _on_finish(self, event: e.Finish, now_s: float) -> list[e.Action]:
        if event.session_id != self.session_id:
            return self._tell(wrong_session(None))
        return [*self._ack(now_s), *self._finish_audio()]

    def _finish_audio(self) -> list[e.Action]:
        assert not self._busy
        self.state = State.FINISHING
        self._busy = True
        return [e.FinishAudio()]

    def _on_disconnected(self, _event: e.Disconnected, now_s: float) -> list[e.Action]:
        """What was said so far is recognised and stored all the same, as ``abandoned``."""
        self._connected = False
        if self.state is State.NEW:
            self.state = State.DONE
        elif self.state is State.ACTIVE and not self._busy:
            return self._finish_audio()
        elif self.state is State.CONFIRMING:
            self.state = State.DONE
        return []

    def _on_deleted(self, _event: e.Deleted, now_s: float) -> list[e.Action]:
        told = self._tell(e.Problem(code="deleted", message="the session was deleted"))
        self.state = State.DONE
        cancel = e.CancelJobs(session_id=self.session_id)
        return [cancel, *told, e.Close(code=CLOSE_GOING_AWAY, reason="deleted")]

    # ----------------------------------------------------------------------------------- the audio

    def _on_audio_decoded(self, event: e.AudioDecoded, now_s: float) -> list[e.Action]:
        assert self.start is not None and self._decoding is not None
        timeline = self._cutter.timeline
        start_sample = timeline.total_samples + len(event.tail) // 2
        frames = self._cutter.append(
            event.tail,
            event.pcm,
            chunk_index=event.chunk_index,
            starts=event.starts_container,
            ends=event.ends_container,
        )
        self._chunk_audio_ms = samples_to_ms(timeline.total_samples - start_sample)
        actions = self._note_chunk(samples_to_ms(start_sample))
        if event.tail_failure is not None:
            actions += self._tell(
                e.Problem(code=event.tail_failure.code, message=event.tail_failure.message)
            )
        if self.start.mode == "chunk":
            return [*actions, *self._take_whole_chunk(start_sample, now_s)]
        if frames:
            return [*actions, e.DetectSpeech(pcm=frames)]
        return [*actions, *self._on_probabilities(e.SpeechProbabilities(probabilities=()), now_s)]

    def _note_chunk(self, offset_ms: int) -> list[e.Action]:
        assert self._decoding is not None
        detail = ChunkDetail(
            chunk_index=self._decoding.chunk_index,
            byte_count=len(self._decoding.data),
            offset_ms=offset_ms,
            duration_ms=self._chunk_audio_ms,
            received_at_ms=self._wall_ms(),
        )
        self._decoding = None
        return [e.SubmitRecord(record=record) for record in self._storage.chunk(detail)]

    def _take_whole_chunk(self, start_sample: int, now_s: float) -> list[e.Action]:
        index = self._chunks.next_index - 1
        utterance = self._cutter.whole_chunk(start_sample, index)
        limit_ms = self.limits.chunk_utterance_ms_max
        if utterance.end_ms - utterance.start_ms > limit_ms:
            message = f"a chunk in mode chunk holds at most {limit_ms} ms"
            problem = e.Problem(code="audio_too_long", message=message, chunk_index=index)
            return [*self._tell(problem), *self._audio_done()]
        return [self._submit(utterance, now_s), *self._audio_done()]

    def _on_audio_failed(self, event: e.AudioFailed, now_s: float) -> list[e.Action]:
        told = self._tell(
            e.Problem(code=event.code, message=event.message, chunk_index=event.chunk_index)
        )
        if self.state is State.FINISHING:
            return [*told, *self._on_audio_finished(e.AudioFinished(tail=event.pcm), now_s)]
        if event.pcm and event.chunk_index is not None:
            heard = e.AudioDecoded(
                chunk_index=event.chunk_index,
                tail=b"",
                pcm=event.pcm,
                starts_container=False,
                ends_container=False,
            )
            return [*told, *self._on_audio_decoded(heard, now_s)]
        self._chunk_audio_ms = 0
        return [*told, *self._note_chunk(self.duration_ms), *self._audio_done()]

    def _on_audio_finished(self, event: e.AudioFinished, now_s: float) -> list[e.Action]:
        assert self.start is not None
        self._audio_over = True
        start_sample = self._cutter.timeline.total_samples
        frames = self._cutter.finish(event.tail)
        if self.start.mode == "chunk":
            actions: list[e.Action] = []
            if event.tail:
                index = max(0, self._chunks.next_index - 1)
                actions = [self._submit(self._cutter.whole_chunk(start_sample, index), now_s)]
            return [*actions, *self._audio_done(), *self._deliver(now_s)]
        if frames:
            return [e.DetectSpeech(pcm=frames)]
        return self._on_probabilities(e.SpeechProbabilities(probabilities=()), now_s)

    def _on_probabilities(self, event: e.SpeechProbabilities, now_s: float) -> list[e.Action]:
        utterances = self._cutter.take(event.probabilities)
        actions: list[e.Action] = [self._submit(utterance, now_s) for utterance in utterances]
        if self._audio_over:
            return [*actions, *self._audio_done(), *self._deliver(now_s)]
        if self._cutter.waits_at_joint:
            wait_s = self._chunk_audio_ms / 1000 + self.limits.joint_wait_extra_s
            self._joint_wait_until_s = now_s + min(wait_s, self.limits.joint_wait_s_max)
        return [*actions, *self._partial(), *self._audio_done()]

    def _audio_done(self) -> list[e.Action]:
        self._busy = False
        if not self._connected and self.state is State.ACTIVE:
            return self._finish_audio()
        return []

    # ------------------------------------------------------------------------------------ the jobs

    def _job(self, utterance: CutUtterance, *, partial: bool) -> Job:
        assert self.start is not None
        return Job(
            session_id=self.session_id,
            seq=self._segments.next_seq,
            partial=partial,
            lane="live",
            start_ms=utterance.start_ms,
            end_ms=utterance.end_ms,
            last_chunk_index=utterance.last_chunk_index,
            language=self.start.language,
            hotwords=self.start.hotwords,
            deadline_ms=self.limits.segment_deadline_ms,
            pcm=utterance.pcm,
        )

    def _submit(self, utterance: CutUtterance, now_s: float) -> e.Action:
        job = self._segments.add(self._job(utterance, partial=False), now_s)
        self._storage.expect_result(job.seq)
        self._partials.segment_ended(utterance.end_ms)
        return e.SubmitJob(job=job)

    def _partial(self) -> list[e.Action]:
        assert self.start is not None
        if not self.start.partials:
            return []
        utterance = self._cutter.open_utterance()
        if utterance is None or not self._partials.ask(utterance):
            return []
        return [e.SubmitJob(job=self._job(utterance, partial=True))]

    def _on_result(self, event: e.ResultArrived, now_s: float) -> list[e.Action]:
        result = event.result
        if result.partial:
            current = result.seq == self._segments.next_seq
            if not current or result.text is None or not self._partials.tell(result.end_ms):
                return []
            return self._tell(e.PartialText(segment_index=result.seq, text=result.text))
        if not self._segments.answer(result, now_s):
            return []
        return [e.KeepResult(result=result), *self._deliver(now_s)]

    def _on_broker_restarted(self, _event: e.BrokerRestarted, now_s: float) -> list[e.Action]:
        return [e.SubmitJob(job=job) for job in self._segments.resend_all(now_s)]

    def _deliver(self, now_s: float) -> list[e.Action]:
        """Tell the results whose turn it is; complete the session after the last."""
        actions: list[e.Action] = []
        for result in self._segments.pop_deliverable():
            self._delivered.append(result)
            actions += self._tell(segment_answer(self.session_id, result))
        over = self._audio_over and not self._busy and self._segments.all_delivered
        if over and self.state is State.FINISHING:
            actions += self._complete(now_s)
        return actions

    def _complete(self, now_s: float) -> list[e.Action]:
        self.state = State.CONFIRMING
        self._confirm_until_s = now_s + self.limits.stored_wait_s
        records = self._storage.finished(
            self._delivered,
            connected=self._connected,
            text=self.text,
            duration_ms=self.duration_ms,
            chunk_count=self.chunk_count,
            completed_at_ms=self._wall_ms(),
        )
        if not self._connected:
            self.state = State.DONE
        return [e.SubmitRecord(record=record) for record in records]

    # ------------------------------------------------------------------------------------- storage

    def _on_stored(self, event: e.KeysStored, now_s: float) -> list[e.Action]:
        self._storage.confirm(event.keys)
        if self.state is State.CONFIRMING and self._storage.complete:
            return self._conclude(stored=True)
        return []

    def _conclude(self, *, stored: bool) -> list[e.Action]:
        self.state = State.DONE
        return self._tell(
            e.Finished(
                session_id=self.session_id,
                text=self.text,
                duration_ms=self.duration_ms,
                chunk_count=self.chunk_count,
                stored=stored,
            )
        )

    def _on_tick(self, _event: e.Tick, now_s: float) -> list[e.Action]:
        actions: list[e.Action] = []
        if self.state is State.ACTIVE and now_s - self._chunks.acked_at_s >= ACK_EVERY_S:
            actions += self._ack(now_s)
        if self._joint_wait_until_s is not None and now_s >= self._joint_wait_until_s:
            self._joint_wait_until_s = None
            if self.state is State.ACTIVE and not self._busy:
                actions += [self._submit(u, now_s) for u in self._cutter.close_joint()]
        resend, failed = self._segments.due(now_s)
        actions += [e.SubmitJob(job=job) for job in resend]
        for result in failed:
            actions += self._on_result(e.ResultArrived(result=result), now_s)
        if self.state is State.CONFIRMING and now_s >= self._confirm_until_s:
            actions += self._conclude(stored=False)
        return actions

    def _tell(self, answer: e.Answer) -> list[e.Action]:
        return [cast(e.Action, answer)] if self._connected else []
