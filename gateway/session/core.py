"""SANS-IO core of one client session: events in, actions out (see ``gateway.session.events``).

The life of a session is the table ``life_cycle.LEGAL``: which client events each state takes. A
client's event out of turn is answered ``bad_state``; an internal event out of turn is our own bug
and asserts. Dialects translate, ``gateway.web.websocket`` performs; neither decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from msgspec.structs import asdict

from gateway.audio.timeline import samples_to_ms
from gateway.session import events as e
from gateway.session.answers import misplaced_chunk, out_of_turn, wrong_session
from gateway.session.chunks import ChunkLedger
from gateway.session.delivery import Delivery
from gateway.session.endpointer import EndpointerConfig
from gateway.session.front_end import FrontEnd, Output
from gateway.session.partials import PartialPacing
from gateway.session.records import Gone, SessionRecords
from gateway.session.resume import ResumePoint
from gateway.session.segmenter import NEW_SESSION, CutUtterance
from gateway.session.segments import Segments
from gateway.session.states import CLIENT_EVENTS, LEGAL, SessionLimits, State
from gateway.session.transcript import join_texts
from gateway.telemetry.metrics import RESULTS_DISCARDED
from wire.messages import Job, Lane
from wire.records import ChunkDetail

ACK_EVERY_CHUNKS = 10
ACK_EVERY_S = 1.0
"""Binary frames are acknowledged cumulatively, after so many or so long."""
CLOSE_NORMAL = 1000
CLOSE_GOING_AWAY = 1001
BEFORE_THE_START = (e.Start, e.Disconnected)
AFTER_THE_END = (e.Finish, e.Attached, e.Disconnected, e.KeysStored)
"""What a session that is over still takes."""


class Session:
    """One session. Feed it with ``handle``; perform the actions in order.

    It outlives its client's connections: one that is lost leaves it waiting for the next.

    The caller's duties: answer ``DecodeChunk``, ``FinishAudio`` and ``DetectSpeech`` with their
    events before the next client event, send ``Tick`` about five times a second,
    and stop reading the client while ``wants_audio`` is false.
    """

    def __init__(
        self,
        limits: SessionLimits,
        endpointer: EndpointerConfig,
        *,
        resume_token: str,
        client: str,
        wall_ms: Callable[[], int],
        resume_point: ResumePoint = NEW_SESSION,
        lane: Lane = "live",
    ) -> None:
        self.limits = limits
        self.state = State.NEW
        self.start: e.Start | None = None
        self.resume_point = resume_point
        self.started_at_ms = 0
        self.client = client
        self.lane: Lane = lane
        self.resume_token = resume_token
        self._wall_ms = wall_ms
        self._endpointer_config = endpointer
        self._chunks = ChunkLedger(resume_point.next_chunk_index)
        self._segments = Segments(limits.segment_deadline_ms, len(resume_point.results))
        self.delivery = Delivery("")
        self.gone: Gone | None = None
        self._over_here = False
        self._storage = SessionRecords("")
        self._partials = PartialPacing(limits.partial_every_ms)
        self._confirm_until_s = 0.0

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
        return (
            self._front_end.duration_ms
            if self.start
            else samples_to_ms(self.resume_point.first_sample)
        )

    @property
    def chunk_count(self) -> int:
        return self._chunks.next_index

    @property
    def segment_count(self) -> int:
        """How many results were told so far."""
        return len(self.delivery.results)

    @property
    def text(self) -> str:
        """The transcript so far."""
        return join_texts(result.text or "" for result in self.delivery.results)

    @property
    def resumable(self) -> bool:
        """Whether its client may come back to it here."""
        return self.start is not None and self.gone is None and not self._over_here

    def handle(self, event: e.Event, now_s: float) -> list[e.Action]:
        """Take one event; returns what is to be done, in order."""
        if isinstance(event, CLIENT_EVENTS) and type(event) not in LEGAL[self.state]:
            return self.delivery.tell(out_of_turn(event, self.state))
        if self.state is State.NEW and not isinstance(event, BEFORE_THE_START):
            return []
        if self.state is State.DONE and not isinstance(event, AFTER_THE_END):
            return []
        return self._HANDLERS[type(event)](self, event, now_s)

    # ---------------------------------------------------------------------------------- the client

    def _on_start(self, event: e.Start, now_s: float) -> list[e.Action]:
        self.start = event
        self.state = State.ACTIVE
        resume_point = self.resume_point
        self.started_at_ms = (
            self._wall_ms() if resume_point.started_at_ms is None else resume_point.started_at_ms
        )
        self._chunks.acknowledge(now_s)
        self._front_end = FrontEnd(
            event, self.limits, self._endpointer_config, self._wall_ms, resume_point
        )
        self._storage = SessionRecords(event.session_id, resume_point.generation)
        self.delivery = Delivery(event.session_id, resume_point.results)
        if resume_point.resumed:
            if resume_point.final is not None:
                self.state = State.DONE
            return self._on_attached(e.Attached(next_segment_index=event.next_segment_index), now_s)
        started = self._storage.started(
            event,
            client=self.client,
            started_at_ms=self.started_at_ms,
            resume_token=self.resume_token,
        )
        answer = e.Started(
            session_id=event.session_id, resume_token=self.resume_token, next_chunk_index=0
        )
        return [*[e.SubmitRecord(record=r) for r in started], *self.delivery.tell(answer)]

    def _on_chunk(self, event: e.Chunk, now_s: float) -> list[e.Action]:
        index = self._chunks.next_index if event.chunk_index is None else event.chunk_index
        if event.session_id not in (None, self.session_id):
            return self.delivery.tell(wrong_session(index))
        expected = self._chunks.next_index
        verdict = self._chunks.receive(index, event.data)
        if verdict == "repeated":
            return self.delivery.tell(e.ChunkReceived(chunk_index=index))
        if verdict != "new":
            return self.delivery.tell(misplaced_chunk(verdict, index, expected))
        acks = event.chunk_index is not None or self._chunks.unacked >= ACK_EVERY_CHUNKS
        told = self._ack(now_s) if acks else []
        return [*told, *self._pass_on(self._front_end.take(index, event.data), now_s)]

    def _ack(self, now_s: float) -> list[e.Action]:
        index = self._chunks.acknowledge(now_s)
        return [] if index is None else self.delivery.tell(e.ChunkReceived(chunk_index=index))

    def _on_finish(self, event: e.Finish, now_s: float) -> list[e.Action]:
        if event.session_id != self.session_id:
            return self.delivery.tell(wrong_session(None))
        if self.state is State.ACTIVE:
            return [*self._ack(now_s), *self._finish_audio(now_s)]
        # It came before, on a connection that was lost; the answer is on its way, or was lost too.
        return self._tell_final() if self.state is State.DONE else []

    def _finish_audio(self, now_s: float) -> list[e.Action]:
        self.state = State.FINISHING
        return self._pass_on(self._front_end.finish(), now_s)

    def _on_disconnected(self, _event: e.Disconnected, now_s: float) -> list[e.Action]:
        if self.state is State.NEW:
            self.state = State.DONE
        self.delivery.detach(now_s)
        return []

    def _on_attached(self, event: e.Attached, now_s: float) -> list[e.Action]:
        self._chunks.acknowledge(now_s)
        next_segment_index = self.delivery.attach(event.next_segment_index)
        answer = e.Resumed(
            session_id=self.session_id,
            resume_token=self.resume_token,
            next_chunk_index=self._chunks.next_index,
            next_segment_index=next_segment_index,
        )
        return [answer, *self.delivery.catch_up()]

    def end_here(self) -> None:
        """Without another word: by a bug of ours, or because it goes on at another gateway."""
        self.state = State.DONE
        self._over_here = True

    def _on_interrupted(self, _event: e.Interrupted, now_s: float) -> list[e.Action]:
        """Stored at once, for there may be no time for what is recognised and stored after it."""
        if self.state is State.ACTIVE:
            self.delivery.detach(now_s)
            self.gone = "interrupted"
            return [*self._record_end(self.gone), *self._on_tick(e.Tick(), now_s)]
        # All was said; if that is recognised in time, another end takes this one's place.
        return self._record_end(self.gone or "interrupted") if self.state is State.FINISHING else []

    def _on_deleted(self, _event: e.Deleted, now_s: float) -> list[e.Action]:
        told = self.delivery.tell(e.Problem(code="deleted", message="the session was deleted"))
        self.state = State.DONE
        self._over_here = True
        cancel = e.CancelJobs(session_id=self.session_id)
        return [cancel, *told, e.Close(code=CLOSE_GOING_AWAY, reason="deleted")]

    # ----------------------------------------------------------------------------------- the audio

    def _on_audio_decoded(self, event: e.AudioDecoded, now_s: float) -> list[e.Action]:
        return self._pass_on(self._front_end.decoded(event, now_s), now_s)

    def _on_audio_failed(self, event: e.AudioFailed, now_s: float) -> list[e.Action]:
        return self._pass_on(self._front_end.failed(event, now_s), now_s)

    def _on_audio_finished(self, event: e.AudioFinished, now_s: float) -> list[e.Action]:
        return self._pass_on(self._front_end.finished(event, now_s), now_s)

    def _on_probabilities(self, event: e.SpeechProbabilities, now_s: float) -> list[e.Action]:
        return self._pass_on(self._front_end.heard(event, now_s), now_s)

    def _pass_on(self, outputs: Iterable[Output], now_s: float) -> list[e.Action]:
        actions: list[e.Action] = []
        for output in outputs:
            if isinstance(output, CutUtterance):
                actions.append(self._submit(output, now_s))
            elif isinstance(output, ChunkDetail):
                records = self._storage.chunk(output)
                actions += [e.SubmitRecord(record=record) for record in records]
            elif isinstance(output, e.Problem):
                actions += self.delivery.tell(output)
            else:
                actions.append(output)
        if self._front_end.over:
            return [*actions, *self._deliver(now_s)]
        return [*actions, *self._partial()]

    # ------------------------------------------------------------------------------------ the jobs

    def _job(self, utterance: CutUtterance, *, partial: bool) -> Job:
        assert self.start is not None
        return Job(
            session_id=self.session_id,
            seq=self._segments.next_seq,
            partial=partial,
            lane=self.lane,
            language=self.start.language,
            hotwords=self.start.hotwords,
            deadline_ms=self.limits.segment_deadline_ms,
            generation=self.resume_point.generation,
            provisional=self.gone is not None,
            **asdict(utterance),
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
        utterance = self._front_end.open_utterance
        if utterance is None or not self._partials.ask(utterance):
            return []
        return [e.SubmitJob(job=self._job(utterance, partial=True))]

    def _on_result(self, event: e.ResultArrived, now_s: float) -> list[e.Action]:
        result = event.result
        if result.partial:
            current = result.seq == self._segments.next_seq
            if not current or result.text is None or not self._partials.tell(result.end_ms):
                RESULTS_DISCARDED.labels("late_partial").inc()
                return []
            return self.delivery.tell(e.PartialText(segment_index=result.seq, text=result.text))
        if not self._segments.answer(result, now_s):
            return []
        contested = self._segments.is_contested(result.seq)
        if contested:
            # What was published may be confirmed already, and be something else.
            self._storage.expect_result(result.seq)
        waited_s = self._segments.waited_s(result.seq, now_s)
        kept = e.KeepResult(result=result, contested=contested, waited_s=waited_s)
        return [kept, *self._deliver(now_s)]

    def _on_broker_restarted(self, _event: e.BrokerRestarted, now_s: float) -> list[e.Action]:
        return [e.SubmitJob(job=job) for job in self._segments.resend_all(now_s)]

    def _deliver(self, now_s: float) -> list[e.Action]:
        """Tell the results whose turn it is; complete the session after the last."""
        actions: list[e.Action] = []
        for result in self._segments.pop_deliverable():
            actions += self.delivery.deliver(result)
        over = self._front_end.over and self._segments.all_delivered
        if over and self.state is State.FINISHING:
            actions += self._complete(now_s)
        return actions

    def _complete(self, now_s: float) -> list[e.Action]:
        self.state = State.CONFIRMING
        self._confirm_until_s = now_s + self.limits.stored_wait_s
        return self._record_end(self.gone)

    def _record_end(self, gone: Gone | None) -> list[e.Action]:
        heard_here = self._chunks.next_index > self.resume_point.next_chunk_index
        if self.gone is not None and self.resume_point.generation and not heard_here:
            # Brought here for a client that was gone by then. The gateway before may have stored
            # more since than we know of: its rows are to stay, and an end of ours would take them.
            return []
        records = self._storage.finished(
            self.delivery.results,
            gone=gone,
            text=self.text,
            duration_ms=self.duration_ms,
            chunk_count=self.chunk_count,
            completed_at_ms=self._wall_ms(),
        )
        return [e.SubmitRecord(record=record) for record in records]

    # ------------------------------------------------------------------------------------- storage

    def _on_stored(self, event: e.KeysStored, now_s: float) -> list[e.Action]:
        self._storage.confirm(event.keys)
        if self.state is State.CONFIRMING and self._storage.complete:
            return self._conclude()
        return []

    def _conclude(self) -> list[e.Action]:
        self.state = State.DONE
        return self._tell_final() if self.delivery.connected else []

    def _tell_final(self) -> list[e.Action]:
        final = self.resume_point.final or e.Finished(
            session_id=self.session_id,
            text=self.text,
            duration_ms=self.duration_ms,
            chunk_count=self.chunk_count,
            stored=self._storage.complete,
        )
        return [*self.delivery.tell(final), e.Close(code=CLOSE_NORMAL, reason="finished")]

    def _on_tick(self, _event: e.Tick, now_s: float) -> list[e.Action]:
        actions: list[e.Action] = []
        if self.state is State.ACTIVE and now_s - self._chunks.acked_at_s >= ACK_EVERY_S:
            actions += self._ack(now_s)
        listens = self.delivery.connected and self.wants_audio
        if utterances := self._front_end.tick(now_s, listens=listens):
            actions += self._pass_on(utterances, now_s)
        resend, failed = self._segments.due(now_s)
        actions += [e.SubmitJob(job=job) for job in resend]
        for result in failed:
            actions += self._on_result(e.ResultArrived(result=result), now_s)
        if self.state is State.CONFIRMING and now_s >= self._confirm_until_s:
            actions += self._conclude()
        if self._is_given_up(now_s):
            self.gone = self.gone or "abandoned"
            actions += self._finish_audio(now_s)
        return actions

    def _is_given_up(self, now_s: float) -> bool:
        """The client has been away too long: what it said is recognised and stored all the same."""
        delivery = self.delivery
        waits = self.state is State.ACTIVE and not delivery.connected and not self._front_end.busy
        away_s = now_s - delivery.detached_at_s
        return waits and (self.gone is not None or away_s >= self.limits.resume_wait_s)

    # Of the class: a session's own bound methods would be cycles, and outlive it.
    _HANDLERS: ClassVar[dict[type, Callable[[Session, Any, float], list[e.Action]]]] = {
        e.Start: _on_start,
        e.Chunk: _on_chunk,
        e.Finish: _on_finish,
        e.Disconnected: _on_disconnected,
        e.Attached: _on_attached,
        e.AudioDecoded: _on_audio_decoded,
        e.AudioFailed: _on_audio_failed,
        e.AudioFinished: _on_audio_finished,
        e.SpeechProbabilities: _on_probabilities,
        e.ResultArrived: _on_result,
        e.KeysStored: _on_stored,
        e.BrokerRestarted: _on_broker_restarted,
        e.Tick: _on_tick,
        e.Interrupted: _on_interrupted,
        e.Deleted: _on_deleted,
    }
