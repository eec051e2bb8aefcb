"""Core: one client session, events in, actions out (see ``gateway.session.events``).

``TRANSITIONS``, at the end, is a session's life as one table: (state, event) → (next state,
handler). A client's event without an entry is answered ``bad_state``. Any other event without one
is a bug and raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import asdict, replace
from websockets.frames import CloseCode

from gateway.audio.timeline import AudioDecoded, Notice, samples_to_ms
from gateway.session import events as e
from gateway.session.chunks import ChunkLedger
from gateway.session.delivery import Delivery
from gateway.session.endpointer import EndpointerConfig
from gateway.session.limits import SessionLimits
from gateway.session.records import EarlyEnd, SessionRecords
from gateway.session.resume import NEW_SESSION, ResumePoint
from gateway.session.segmenter import CutUtterance, Segmenter
from gateway.session.session_jobs import PartialPacing, SessionJobs
from gateway.session.speakers import UNKNOWN, Speakers
from gateway.session.start_warnings import warnings_of
from gateway.session.states import State
from gateway.session.transcript import join_texts
from wire.messages import Cancel, Failure, Job, Lane, Result
from wire.records import DEFAULT_TENANT, ChunkDetail

ACK_EVERY_CHUNKS = 10
ACK_EVERY_S = 1.0
"""Binary frames are acknowledged cumulatively, after this many frames or this time."""
SPEAKER_LABELS_PER_RECORD = 8
"""Labels that may be lost if the gateway is killed. A new speaker is recorded at once, so that its
label is never given to another voice."""
WARNINGS_MAX = 8
"""Different warnings about the audio in the final result."""
RECENT_EVENTS = 16
"""Events named in the message of an assertion."""

Actions = list[e.Action]
Handler = Callable[["Session", Any, float], Actions]


class Session:
    """One session, over all connections of its client.

    The caller's duties:

    - Call ``handle`` with each event and perform the returned actions in order.
    - After a ``Chunk`` that makes the session ``busy``, and after the action ``FlushDecoder``:
      decode, handle the result, detect speech in ``take_frames``, and handle
      ``SpeechProbabilities``; of a large chunk one piece after the other. Handle no other client
      event meanwhile.
    - Send ``Tick`` about twice a second.
    - Stop reading from the client while ``wants_audio`` is false.

    ``limits`` are those of its protocol. ``client`` is the client's address, which is stored with
    the session. Jobs of the ``bulk`` lane wait for all live ones. ``wall_offset_ms`` is the wall
    clock less the monotonic clock of ``now_s``. It dates what is stored, so that a session's
    actions follow from its events alone.
    """

    def __init__(
        self,
        limits: SessionLimits,
        endpointer: EndpointerConfig,
        *,
        resume_token: str,
        client: str,
        tenant: str = DEFAULT_TENANT,
        wall_offset_ms: int,
        resume_point: ResumePoint = NEW_SESSION,
        lane: Lane = "live",
    ) -> None:
        self.limits = limits
        self.state = State.NEW
        self.start: e.Start | None = None
        self.resume_point = resume_point
        self.started_at_ms = 0
        self.client = client
        self.tenant = tenant
        self.lane: Lane = lane
        self.resume_token = resume_token
        self.busy = False
        """A chunk, or the end of the audio, is being decoded."""
        self.early_end: EarlyEnd | None = None
        self.delivery = Delivery("")
        self._wall_offset_ms = wall_offset_ms
        self._endpointer_config = endpointer
        self._chunks = ChunkLedger(resume_point.next_chunk_index)
        self._decoding = (0, 0)
        """Index and size in bytes of the chunk being decoded."""
        self._more = False
        """Pieces of the chunk being decoded follow."""
        self._jobs = SessionJobs(len(resume_point.results))
        self._partials = PartialPacing(limits.partial_every_ms)
        self._records = SessionRecords("")
        self._speakers: Speakers | None = None
        """None: not asked for."""
        self._labels_recorded = 0
        self._speech_reported = False
        """``SpeechStarted`` was sent, and ``SpeechEnded`` was not yet."""
        self._silence_awaited = False
        """Speech has ended, and ``LongSilence`` may still be sent."""
        self._audio_over = False
        self._warnings: list[e.SessionWarning] = []
        """About the audio, for the final result."""
        self._audio_failure: Failure | None = None
        """The session has failed with it …"""
        self._audio_fault: Failure | None = None
        """… and with this, the first fault of its audio, if it has no segment."""
        self._finished_at_s: float | None = None
        self._confirm_until_s = 0.0
        self._final_sent = False
        """On the present connection."""
        self._recent: deque[tuple[float, str]] = deque(maxlen=RECENT_EVENTS)

    # ----------------------------------------------------------------------------- public interface

    @property
    def session_id(self) -> str:
        return self.start.session_id if self.start is not None else ""

    @property
    def wants_audio(self) -> bool:
        """False: too much audio awaits results. Leave the client's bytes in its socket."""
        return self._jobs.unanswered_audio_ms <= self.limits.unanswered_audio_ms_max

    @property
    def duration_ms(self) -> int:
        if self.start is None:
            return samples_to_ms(self.resume_point.first_sample)
        return self._segmenter.duration_ms

    @property
    def chunk_count(self) -> int:
        return self._chunks.next_index

    @property
    def segment_count(self) -> int:
        """The number of delivered results."""
        return len(self.delivery.results)

    @property
    def text(self) -> str:
        """The transcript so far."""
        return join_texts(result.text or "" for result in self.delivery.results)

    @property
    def over(self) -> bool:
        return self.state in (State.DONE, State.RELEASED)

    @property
    def resumable(self) -> bool:
        """Whether the client may resume the session here."""
        started = self.start is not None and self.state is not State.RELEASED
        return started and self.early_end is None

    def take_frames(self) -> bytes:
        """Whole frames of 512 samples of the audio just decoded, for speech detection."""
        return self._segmenter.take_frames()

    def handle(self, event: e.Event, now_s: float) -> Actions:
        """Take one event. Returns the actions to perform, in order.

        Raises:
            AssertionError: an event that is no client's is impossible in this state.
        """
        kind = type(event)
        row = TRANSITIONS.get((self.state, kind))
        if row is None:
            return self._out_of_turn(event, now_s)
        self._recent.append((now_s, kind.__name__))
        self.state, handler = row
        return handler(self, event, now_s)

    def _out_of_turn(self, event: e.Event, now_s: float) -> Actions:
        name = type(event).__name__
        if not isinstance(event, e.ClientEvent):
            recent = ", ".join(f"{at_s - now_s:+.3f} s {kind}" for at_s, kind in self._recent)
            raise AssertionError(f"{name} in state {self.state}, after: {recent or 'nothing'}")
        return self.delivery.send(
            e.Problem(
                code="bad_state",
                message=f"{name.lower()} is not possible now: the session is {self.state}",
                chunk_index=event.chunk_index if isinstance(event, e.Chunk) else None,
            )
        )

    # ----------------------------------------------------------------------------------- the client

    def _start(self, event: e.Start, now_s: float) -> Actions:
        resume_point = self.resume_point
        self.start = event
        self._options = event  # The same for later handlers, to which it is never None.
        self.started_at_ms = (
            self._wall_ms(now_s)
            if resume_point.started_at_ms is None
            else resume_point.started_at_ms
        )
        self._chunks.acknowledge(now_s)
        endpointer = self._endpointer_config.chosen(event.endpointing)
        self._segmenter = Segmenter(event.mode, endpointer, self.limits, resume_point)
        self._records = SessionRecords(event.session_id, resume_point.generation)
        if event.speakers or resume_point.speaker_max:
            self._speakers = Speakers(
                self.limits.speaker_similarity_min,
                resume_point.speakers or [UNKNOWN] * len(resume_point.results),
                resume_point.centroids,
                resume_point.speaker_max,
            )
            self._labels_recorded = len(self._speakers.labels)
        labels = self._speakers.labels if self._speakers is not None else ()
        self.delivery = Delivery(event.session_id, resume_point.results, labels)
        self.resume_point = resume_point.without_results()  # ``delivery`` keeps them, packed.
        if resume_point.resumed:
            complete = self.handle(e.AlreadyComplete(), now_s) if resume_point.final else []
            attached = e.Attached(next_segment_index=event.next_segment_index)
            return [*complete, *self._attach(attached, now_s)]
        started = self._records.started(
            event,
            client=self.client,
            tenant=self.tenant,
            started_at_ms=self.started_at_ms,
            resume_token=self.resume_token,
        )
        answer = e.Started(
            session_id=event.session_id,
            resume_token=self.resume_token,
            next_chunk_index=0,
            model=event.model,
            abilities=event.abilities,
            warnings=warnings_of(event),
        )
        return [*started, *self.delivery.send(answer)]

    def _receive_chunk(self, event: e.Chunk, now_s: float) -> Actions:
        expected = self._chunks.next_index
        index = expected if event.chunk_index is None else event.chunk_index
        if event.session_id is not None and event.session_id != self.session_id:
            return self.delivery.send(_wrong_session(index))
        verdict = self._chunks.receive(index, event.data)
        if verdict == "repeated":
            return self.delivery.send(e.ChunkReceived(chunk_index=index))
        if verdict != "new":
            return self.delivery.send(_misplaced_chunk(verdict, index, expected))
        self.busy = True
        self._decoding = index, len(event.data)
        self._segmenter.chunk_received()
        if event.ignored_fields:
            names = ", ".join(event.ignored_fields)
            self._note([Notice("field_ignored", f"fields of a chunk without effect: {names}")])
        if event.chunk_index is not None or self._chunks.unacked >= ACK_EVERY_CHUNKS:
            return self._acknowledge(now_s)
        return []

    def _acknowledge(self, now_s: float) -> Actions:
        index = self._chunks.acknowledge(now_s)
        return [] if index is None else self.delivery.send(e.ChunkReceived(chunk_index=index))

    def _end_utterance(self, event: e.EndUtterance, now_s: float) -> Actions:
        utterances = self._segmenter.end_utterance()
        actions = [] if event.discard else self._submit(utterances, now_s)
        self._partials.segment_ended(self.duration_ms)
        return [*actions, *self._report_speech_ended(self.duration_ms, requested=True)]

    def _finish(self, event: e.Finish, now_s: float) -> Actions:
        if event.session_id != self.session_id:
            return self.delivery.send(_wrong_session(None))
        self._finished_at_s = now_s
        return [*self._acknowledge(now_s), *self.handle(e.InputEnded(), now_s)]

    def _refuse_audio(self, event: e.AudioRefused, now_s: float) -> Actions:
        """The session has failed, with the texts of all audio before."""
        self._audio_failure = Failure(code=event.code, message=event.message)
        problem = e.Problem(code=event.code, message=event.message)
        return [
            *self._acknowledge(now_s),
            *self.delivery.send(problem),
            *self.handle(e.InputEnded(), now_s),
        ]

    def _finish_again(self, event: e.Finish, now_s: float) -> Actions:
        """A resumed client repeats its finish, because it cannot know whether the first one
        arrived."""
        if event.session_id != self.session_id:
            return self.delivery.send(_wrong_session(None))
        due = self.state is State.DONE and not self._final_sent
        return self._send_final(now_s) if due else []

    def _detach(self, _event: e.Disconnected, now_s: float) -> Actions:
        self.delivery.detach(now_s)
        return []

    def _attach(self, event: e.Attached, now_s: float) -> Actions:
        self._final_sent = False
        self._chunks.acknowledge(now_s)
        next_segment_index = self.delivery.attach(event.next_segment_index)
        answer = e.Resumed(
            session_id=self.session_id,
            resume_token=self.resume_token,
            next_chunk_index=self._chunks.next_index,
            next_segment_index=next_segment_index,
            model=self._options.model,
            abilities=self._options.abilities,
            warnings=warnings_of(self._options),
        )
        return [answer, *self.delivery.missed()]

    def _note_written(self, event: e.SegmentWritten, _now_s: float) -> Actions:
        self.delivery.note_written(event.segment_index)
        return []

    def _delete(self, _event: e.Deleted, _now_s: float) -> Actions:
        problem = e.Problem(code="deleted", message="the session was deleted")
        cancel = Cancel(session_id=self.session_id)
        close = e.Close(code=CloseCode.GOING_AWAY, reason="deleted")
        return [cancel, *self.delivery.send(problem), close]

    # ------------------------------------------------------------------------------------ the audio

    def _append(self, event: AudioDecoded, now_s: float) -> Actions:
        warned = self._note(event.notices)
        self._segmenter.append(self._decoding[0], event)
        self._more = event.more
        if self._options.result_per_file and event.begins_container:
            start_ms = samples_to_ms(self._segmenter.chunk_start_sample)
            self.delivery.begin_file(self._decoding[0], start_ms)
        actions = warned if event.more else [*warned, *self._end_chunk(now_s)]
        if event.tail_failure is not None:
            failure = event.tail_failure
            actions += self.delivery.send(e.Problem(code=failure.code, message=failure.message))
        return actions

    def _fail_chunk(self, event: e.AudioFailed, now_s: float) -> Actions:
        index = self._decoding[0]
        problem = e.Problem(code=event.code, message=event.message, chunk_index=index)
        self._note_audio_failure(event)
        actions = self.delivery.send(problem)
        if event.was_noise:
            actions += self._drop_utterance()
        if event.pcm:
            return [*actions, *self._append(AudioDecoded(pcm=event.pcm), now_s)]
        self._segmenter.skip_chunk()
        self._more = False
        return [*actions, *self._end_chunk(now_s)]

    def _drop_utterance(self) -> Actions:
        """Discard the open utterance, which was not speech."""
        self._segmenter.end_utterance()
        self._partials.segment_ended(self.duration_ms)
        if not self._options.speech_events or not self._speech_reported:
            return []
        return self._report_speech_ended(self.duration_ms)

    def _note_audio_failure(self, event: e.AudioFailed) -> None:
        """A session of one file fails with it. Other sessions continue with the next file, and have
        failed if no speech was found in any."""
        failure = Failure(code=event.code, message=event.message)
        self._audio_fault = self._audio_fault or failure
        if self._options.encoded:
            self._audio_failure = self._audio_failure or failure

    def _end_chunk(self, now_s: float) -> Actions:
        """The chunk is decoded."""
        index, byte_count = self._decoding
        detail = ChunkDetail(
            chunk_index=index,
            byte_count=byte_count,
            offset_ms=samples_to_ms(self._segmenter.chunk_start_sample),
            duration_ms=self._segmenter.chunk_duration_ms,
            received_at_ms=self._wall_ms(now_s),
        )
        ended: Actions = []
        if self.delivery.awaits_files:
            end_ms = self.duration_ms if self._segmenter.whole_file else None
            ended = self.delivery.end_file(index, end_ms)
        return [*ended, *self._records.chunk(detail)]

    def _segment(self, event: e.SpeechProbabilities, now_s: float) -> Actions:
        self.busy = self._more
        utterances = self._segmenter.take(event.probabilities, now_s)
        return [*self._submit_cut(utterances, now_s), *self._partial(now_s)]

    def _flush_decoder(self, _event: e.InputEnded | e.Abandoned, _now_s: float) -> Actions:
        self.busy = True
        return [e.FlushDecoder()]

    def _append_last(self, event: AudioDecoded, _now_s: float) -> Actions:
        self._more = event.more
        self._segmenter.finish(event.tail, more=event.more)
        return self._note(event.notices)

    def _fail_last(self, event: e.AudioFailed, _now_s: float) -> Actions:
        self._more = False
        self._segmenter.finish(event.pcm)
        self._note_audio_failure(event)
        return self.delivery.send(e.Problem(code=event.code, message=event.message))

    def _note(self, notices: Sequence[Notice]) -> Actions:
        """Add notices about the audio that was used to the final result."""
        if not notices:
            return []
        noted = len(self._warnings)
        for notice in notices:
            warning = e.SessionWarning(code=notice.code, message=notice.message)
            if warning not in self._warnings and len(self._warnings) < WARNINGS_MAX:
                self._warnings.append(warning)
        new = tuple(self._warnings[noted:])
        if not new or not self._options.warnings_at_once:
            return []
        return self.delivery.send(e.AudioWarned(warnings=new))

    def _segment_last(self, event: e.SpeechProbabilities, now_s: float) -> Actions:
        self.busy = self._more
        self._audio_over = not self._more
        utterances = self._segmenter.take(event.probabilities, now_s)
        return [*self._submit_cut(utterances, now_s), *self._deliver(now_s)]

    # ------------------------------------------------------------------------------------- the jobs

    def _job(self, utterance: CutUtterance, *, partial: bool) -> Job:
        seq = self._jobs.next_seq
        place = asdict(utterance)
        del place["continues"], place["silence_before_ms"]
        return Job(
            session_id=self.session_id,
            seq=seq,
            partial=partial,
            lane=self.lane,
            language=self._options.language,
            hotwords=self._options.hotwords,
            speakers=self._speakers is not None and not partial,
            model=self._options.model,
            punctuation=self._options.punctuation,
            itn=self._options.itn,
            context=self.delivery.text_before(seq),
            deadline_ms=self.limits.segment_deadline_ms,
            generation=self.resume_point.generation,
            provisional=self.early_end is not None,
            **place,
        )

    def _submit(self, utterances: Iterable[CutUtterance], now_s: float) -> Actions:
        actions: Actions = []
        limit_ms = self.limits.chunk_utterance_ms_max
        for utterance in utterances:
            if self._options.mode == "chunk" and utterance.end_ms - utterance.start_ms > limit_ms:
                problem = e.Problem(
                    code="audio_too_long",
                    message=f"a chunk in mode chunk holds at most {limit_ms} ms",
                    chunk_index=utterance.last_chunk_index,
                )
                actions += self.delivery.send(problem)
                continue
            job = self._job(utterance, partial=False)
            self._jobs.add(job, now_s)
            self._records.expect_result(job.seq)
            self._partials.segment_ended(utterance.end_ms)
            actions.append(job)
        return actions

    def _submit_cut(self, utterances: Iterable[CutUtterance], now_s: float) -> Actions:
        """Submit the ``utterances`` that the segmenter has cut, and answer chunks that hold one
        whole file, if all their segments are known now."""
        submit = self._submit_and_report if self._options.speech_events else self._submit
        actions = submit(utterances, now_s)
        if not self.delivery.awaits_files:
            return actions
        settled_ms, next_seq = self._segmenter.settled_ms, self._jobs.next_seq
        return [*actions, *self.delivery.complete_files(settled_ms, next_seq)]

    def _submit_and_report(self, utterances: Iterable[CutUtterance], now_s: float) -> Actions:
        """Submit ``utterances``, and report starts and ends of speech to the client."""
        actions: Actions = []
        for utterance in utterances:
            start = utterance.start_ms, utterance.silence_before_ms
            actions += self._report_speech_started(*start)
            actions += self._submit([utterance], now_s)
            if not utterance.continues:
                actions += self._report_speech_ended(utterance.end_ms)
        if (spoken := self._segmenter.speech_start_ms) is not None:
            actions += self._report_speech_started(*spoken)
        elif self._speech_reported and self._segmenter.open_utterance_ms is None:
            # Silence after a cut at the limit.
            actions += self._report_speech_ended(self.duration_ms)
        return [*actions, *self._report_long_silence(self._segmenter.trailing_silence_ms)]

    def _report_speech_started(self, start_ms: int, silence_before_ms: int) -> Actions:
        if self._speech_reported:
            return []
        before = self._report_long_silence(silence_before_ms)
        self._speech_reported, self._silence_awaited = True, False
        return [*before, *self.delivery.send(e.SpeechStarted(start_ms=start_ms))]

    def _report_long_silence(self, silence_ms: int) -> Actions:
        limit_ms = self._options.long_silence_ms
        if not self._silence_awaited or limit_ms is None or silence_ms < limit_ms:
            return []
        self._silence_awaited = False
        return self.delivery.send(e.LongSilence(next_segment_index=self._jobs.next_seq))

    def _report_speech_ended(self, end_ms: int, *, requested: bool = False) -> Actions:
        self._silence_awaited |= self._speech_reported
        self._speech_reported = False
        next_index = self._jobs.next_seq
        ended = e.SpeechEnded(end_ms=end_ms, next_segment_index=next_index, requested=requested)
        return self.delivery.send(ended)

    def _partial(self, now_s: float) -> Actions:
        if not self._options.partials or (spoken := self._segmenter.open_utterance_ms) is None:
            return []
        if not self._partials.submit(*spoken, now_s):
            return []
        utterance = self._segmenter.open_utterance()
        if utterance is None:
            self._partials.answered(spoken[1], now_s)
            return []
        return [self._job(utterance, partial=True)]

    def _take_result(self, result: Result, now_s: float) -> Actions:
        if result.partial:
            return self._take_partial(result, now_s)
        if discarded := self._jobs.take_result(result, now_s):
            return [e.Count(discarded="result", reason=discarded)]
        contested = self._jobs.is_contested(result.seq)
        if contested:
            # The published result may be confirmed already, and differ from this one.
            self._records.expect_result(result.seq)
        waited_s = self._jobs.waited_s(result.seq, now_s)
        kept = e.KeepResult(
            result=_without_embedding(result), contested=contested, waited_s=waited_s
        )
        return [kept, *self._deliver(now_s)]

    def _take_partial(self, result: Result, now_s: float) -> Actions:
        self._partials.answered(result.end_ms, now_s)
        if not result.text:
            # It failed, or the model has no word yet. The client keeps a text that it has.
            return [e.Count(discarded="result", reason="partial_without_text")]
        current = result.seq == self._jobs.next_seq
        if not current or not self._partials.send(result.end_ms, result.text):
            return [e.Count(discarded="result", reason="late_partial")]
        answer = e.PartialText(
            segment_index=result.seq,
            text=result.text,
            start_ms=result.start_ms,
            end_ms=result.end_ms,
            tokens=result.tokens,
        )
        return self.delivery.send(answer)

    def _resend_all(self, _event: e.JobsMayBeLost, now_s: float) -> Actions:
        return [*self._jobs.resend_all(now_s)]

    def _resend_due(self, now_s: float) -> Actions:
        resend, failed = self._jobs.due(now_s)
        actions: Actions = [*resend]
        for result in failed:
            actions += self._take_result(result, now_s)
        return actions

    def _deliver(self, now_s: float) -> Actions:
        """Send the results that are next in order. The last one completes the session."""
        actions: Actions = []
        for result in self._jobs.pop_deliverable():
            actions += self._label(result)
            actions += self.delivery.send_result(_without_embedding(result))
        actions += self.delivery.send_files()
        if self._audio_over and self._jobs.all_delivered:
            actions += self.handle(e.AllDelivered(), now_s)
        return actions

    def _label(self, result: Result) -> Actions:
        """Find the speaker of the next result in order."""
        if (speakers := self._speakers) is None:
            return []
        known = speakers.count
        if unusable := speakers.add(result.embedding, result.end_ms - result.start_ms):
            return [e.Count(discarded="embedding", reason=unusable)]
        unrecorded = len(speakers.labels) - self._labels_recorded
        if speakers.count > known or unrecorded >= SPEAKER_LABELS_PER_RECORD:
            return self._record_labels()
        return []

    def _record_labels(self) -> Actions:
        """Record the labels that are not recorded yet, or were corrected."""
        if self._speakers is None:
            return []
        first, labels = self._labels_recorded, self._speakers.labels
        self._labels_recorded = len(labels)
        # Another gateway needs the centroids, unless this was the last record of the session.
        ended = self.state is State.CONFIRMING and self.early_end != "interrupted"
        centroids = () if ended else self._speakers.centroids()
        return [*self._records.speakers(first, labels[first:], centroids)]

    # -------------------------------------------------------------------------------------- the end

    def _complete(self, _event: e.AllDelivered, now_s: float) -> Actions:
        self._confirm_until_s = now_s + self.limits.stored_wait_s
        if self._speakers is not None and (corrected := self._speakers.recluster()):
            self._labels_recorded = min(self._labels_recorded, corrected[0])
        return self._record_end(self.early_end, now_s)

    def _record_end(self, early_end: EarlyEnd | None, now_s: float) -> Actions:
        received_here = self._chunks.next_index > self.resume_point.next_chunk_index
        if self.early_end is not None and self.resume_point.generation and not received_here:
            # Taken over for a client that sent nothing more. The previous gateway may have stored
            # more since, and an end recorded here would replace its rows.
            return []
        labelled = self._record_labels()
        fault = None if self.delivery.results else self._audio_fault
        records = self._records.finished(
            self.delivery.results,
            early_end=early_end,
            audio_failure=self._audio_failure or fault,
            text=self.text,
            duration_ms=self.duration_ms,
            chunk_count=self.chunk_count,
            completed_at_ms=self._wall_ms(now_s),
        )
        return [*labelled, *records]

    def _confirm(self, event: e.KeysStored, now_s: float) -> Actions:
        self._records.confirm(event.keys)
        if self.state is State.CONFIRMING and self._records.complete:
            return self.handle(e.AllStored(), now_s)
        return []

    def _conclude(self, _event: e.AllStored | e.ConfirmTimedOut, now_s: float) -> Actions:
        return self._send_final(now_s) if self.delivery.connected else []

    def _send_final(self, now_s: float) -> Actions:
        final = self.resume_point.final or e.Finished(
            session_id=self.session_id,
            text=self.text,
            duration_ms=self.duration_ms,
            chunk_count=self.chunk_count,
            stored=self._records.complete,
            warnings=(*self._warnings, *self._without_text()),
        )
        final = replace(final, speakers=self._speaker_of_each())
        self._final_sent = True
        close = e.Close(code=CloseCode.NORMAL_CLOSURE, reason="finished")
        actions: Actions = [*self.delivery.send(final), close]
        if self._finished_at_s is not None:
            actions.insert(0, e.ObserveFinish(waited_s=now_s - self._finished_at_s))
            self._finished_at_s = None
        return actions

    def _without_text(self) -> tuple[e.SessionWarning, ...]:
        """A warning if there is no text, although there was speech and no error. In mode chunk
        silence is recognised, too."""
        results = self.delivery.results
        if self._options.mode == "chunk" or not results:
            return ()
        if any(result.text or result.error for result in results):
            return ()
        speech_s = sum(result.end_ms - result.start_ms for result in results) / 1000
        message = f"the model gave no text for the {speech_s:.1f} s that were taken for speech"
        return (e.SessionWarning(code="no_text", message=message),)

    def _speaker_of_each(self) -> tuple[int | None, ...] | None:
        if self._speakers is None:
            return None
        return tuple(map(self.delivery.speaker, range(self.segment_count)))

    def _interrupt(self, _event: e.Interrupted, now_s: float) -> Actions:
        """Record the end at once: the gateway may exit before recognition and storage."""
        self.delivery.detach(now_s)
        self.early_end = "interrupted"
        return [*self._record_end(self.early_end, now_s), *self._give_up_if_due(now_s)]

    def _interrupt_finished(self, _event: e.Interrupted, now_s: float) -> Actions:
        """All audio has arrived. If it is recognised in time, a second end replaces this one."""
        return self._record_end(self.early_end or "interrupted", now_s)

    def _give_up_if_due(self, now_s: float) -> Actions:
        """The client did not resume in time. Its audio is recognised and stored."""
        if self.delivery.connected or self.busy:
            return []
        away_s = now_s - self.delivery.detached_at_s
        if self.early_end is None and away_s < self.limits.resume_wait_s:
            return []
        self.early_end = self.early_end or "abandoned"
        return self.handle(e.Abandoned(), now_s)

    # ----------------------------------------------------------------------------------------- time

    def _wall_ms(self, now_s: float) -> int:
        return int(now_s * 1000) + self._wall_offset_ms

    def _tick_active(self, _event: e.Tick, now_s: float) -> Actions:
        actions: Actions = []
        if now_s - self._chunks.acked_at_s >= ACK_EVERY_S:
            actions += self._acknowledge(now_s)
        listening = self.delivery.connected and self.wants_audio
        if utterances := self._segmenter.tick(now_s, listening=listening):
            actions += self._submit_cut(utterances, now_s)
        return [*actions, *self._resend_due(now_s), *self._give_up_if_due(now_s)]

    def _tick_finishing(self, _event: e.Tick, now_s: float) -> Actions:
        return self._resend_due(now_s)

    def _tick_confirming(self, _event: e.Tick, now_s: float) -> Actions:
        if now_s < self._confirm_until_s:
            return []
        return self.handle(e.ConfirmTimedOut(), now_s)

    def _release(self, event: e.Released, now_s: float) -> Actions:
        if event.failure is None:
            return []
        self._audio_failure = event.failure
        return [Cancel(session_id=self.session_id), *self._record_end(None, now_s)]

    def _nothing(self, _event: e.Event, _now_s: float) -> Actions:
        return []


def _without_embedding(result: Result) -> Result:
    """A voice print is needed for the speaker's label only."""
    return replace(result, embedding=b"") if result.embedding else result


def _wrong_session(chunk_index: int | None) -> e.Problem:
    message = "session_id is not this connection's session"
    return e.Problem(code="bad_message", message=message, chunk_index=chunk_index)


def _misplaced_chunk(verdict: str, index: int, expected: int) -> e.Problem:
    if verdict == "conflict":
        message = f"chunk {index} was received before with other bytes"
        return e.Problem(code="seq_conflict", message=message, chunk_index=index)
    return e.Problem(
        code="expected_seq",
        message=f"received chunk {index}, expected chunk {expected}",
        chunk_index=index,
        expected_chunk_index=expected,
    )


Rows = dict[tuple[State, type], tuple[State, Handler]]


def _stay(states: Iterable[State], handlers: dict[type, Handler]) -> Rows:
    """Rows of events that leave the state as it is."""
    return {(state, kind): (state, handlers[kind]) for state in states for kind in handlers}


_NEW, _ACTIVE, _FINISHING = State.NEW, State.ACTIVE, State.FINISHING
_CONFIRMING, _DONE, _RELEASED = State.CONFIRMING, State.DONE, State.RELEASED

TRANSITIONS: Rows = {
    (_NEW, e.Start): (_ACTIVE, Session._start),
    (_NEW, e.Disconnected): (_DONE, Session._detach),
    (_NEW, e.Released): (_RELEASED, Session._nothing),
    #
    **_stay(
        [_ACTIVE],
        {
            e.Chunk: Session._receive_chunk,
            e.EndUtterance: Session._end_utterance,
            AudioDecoded: Session._append,
            e.AudioFailed: Session._fail_chunk,
            e.SpeechProbabilities: Session._segment,
            e.Tick: Session._tick_active,
            e.Interrupted: Session._interrupt,
            e.Finish: Session._finish,
            e.AudioRefused: Session._refuse_audio,
        },
    ),
    (_ACTIVE, e.InputEnded): (_FINISHING, Session._flush_decoder),
    (_ACTIVE, e.Abandoned): (_FINISHING, Session._flush_decoder),
    (_ACTIVE, e.AlreadyComplete): (_DONE, Session._nothing),
    (_ACTIVE, e.Deleted): (_RELEASED, Session._delete),
    (_ACTIVE, e.Released): (_RELEASED, Session._release),
    #
    **_stay(
        [_FINISHING],
        {
            AudioDecoded: Session._append_last,
            e.AudioFailed: Session._fail_last,
            e.SpeechProbabilities: Session._segment_last,
            e.Tick: Session._tick_finishing,
            e.Interrupted: Session._interrupt_finished,
        },
    ),
    (_FINISHING, e.AllDelivered): (_CONFIRMING, Session._complete),
    (_FINISHING, e.Deleted): (_RELEASED, Session._delete),
    (_FINISHING, e.Released): (_RELEASED, Session._release),
    #
    (_CONFIRMING, e.Tick): (_CONFIRMING, Session._tick_confirming),
    (_CONFIRMING, e.AllStored): (_DONE, Session._conclude),
    (_CONFIRMING, e.ConfirmTimedOut): (_DONE, Session._conclude),
    (_CONFIRMING, e.Deleted): (_RELEASED, Session._delete),
    (_CONFIRMING, e.Released): (_RELEASED, Session._nothing),
    #
    (_DONE, e.Released): (_RELEASED, Session._nothing),
    # In several states:
    **_stay([_ACTIVE, _FINISHING], {e.JobsMayBeLost: Session._resend_all}),
    **_stay([_ACTIVE, _FINISHING, _CONFIRMING], {Result: Session._take_result}),
    **_stay([_FINISHING, _CONFIRMING, _DONE], {e.Finish: Session._finish_again}),
    **_stay(
        [_ACTIVE, _FINISHING, _CONFIRMING, _DONE],
        {
            e.KeysStored: Session._confirm,
            e.Disconnected: Session._detach,
            e.Attached: Session._attach,
            e.SegmentWritten: Session._note_written,
        },
    ),
    # Too late for these.
    **_stay([_CONFIRMING], dict.fromkeys((e.JobsMayBeLost, e.Interrupted), Session._nothing)),
    # A chunk may still be in the decoder or in speech detection.
    **_stay(
        [_RELEASED],
        dict.fromkeys((AudioDecoded, e.AudioFailed, e.SpeechProbabilities), Session._nothing),
    ),
    **_stay([_RELEASED], dict.fromkeys((e.Disconnected, e.Released), Session._nothing)),
}
