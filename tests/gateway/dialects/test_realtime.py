"""OpenAI's Realtime API over the session core: a client's events in, the server's events out."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest
from msgspec import structs

from gateway.audio.timeline import Notice
from gateway.audio.wav import DeclaredAudio
from gateway.dialects.dialect import TOO_MANY, WAITING_MAX, Handshake, Ignored, Reply
from gateway.dialects.realtime import Realtime
from gateway.session import events as e
from gateway.session.start_warnings import warnings_of
from tests.gateway.session_driver import SessionDriver, result_of, silence, speech
from wire.messages import Abilities, Failure, Job

Event = dict[str, Any]
TRANSCRIPTION = "conversation.item.input_audio_transcription"


class Talk:
    """A connection: each session of the dialect has a core of its own, one after the other."""

    def __init__(self, **handshake: Any) -> None:
        numbers = itertools.count()
        self.dialect = Realtime(Handshake(**handshake), lambda: f"id{next(numbers)}")
        self.sessions: list[SessionDriver] = []
        self.starts: list[e.Start] = []
        self.greeting = [json.loads(text) for text in self.dialect.greeting()]

    def send(self, kind: str, **fields: Any) -> list[Event]:
        return self.say(json.dumps({"type": kind, **fields}))

    def say(self, message: str | bytes) -> list[Event]:
        events: list[Event] = []
        for parsed in self.dialect.parse(message):
            if isinstance(parsed, Reply):
                events.append(json.loads(parsed.text))
                continue
            assert not isinstance(parsed, Ignored)
            if isinstance(parsed, e.Start):
                self.starts.append(parsed)
                self.sessions.append(SessionDriver(stored_wait_s=0.0))
            events += self.encoded(self.sessions[-1].feed(parsed))
        return events

    def encoded(self, answers: list[e.Answer]) -> list[Event]:
        return [json.loads(text) for answer in answers for text in self.dialect.encode(answer)]

    def append(self, audio: bytes) -> list[Event]:
        return self.send("input_audio_buffer.append", audio=base64.b64encode(audio).decode())

    def update(self, **audio_input: Any) -> list[Event]:
        audio_input = {"format": {"type": "audio/pcm", "rate": 16_000}, **audio_input}
        session = {"type": "transcription", "audio": {"input": audio_input}}
        return self.send("session.update", session=session)

    @property
    def jobs(self) -> list[Job]:
        return [job for job in self.sessions[-1].jobs if not job.partial]

    def recognise(self, job: Job, text: str) -> list[Event]:
        return self.encoded(self.sessions[-1].recognise(job, text))


def kinds(events: list[Event]) -> list[str]:
    return [event["type"] for event in events]


def test_a_turn_that_speech_detection_ends() -> None:
    talk = Talk()
    assert kinds(talk.greeting) == ["session.created"]
    talk.update()
    (started,) = talk.append(silence(400) + speech(500))
    assert kinds([started]) == ["input_audio_buffer.speech_started"]
    stopped, committed, added, done = talk.append(silence(1_000))
    assert kinds([stopped, committed, added, done]) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    (job,) = talk.jobs
    assert (started["audio_start_ms"], stopped["audio_end_ms"]) == (job.start_ms, job.end_ms)
    item_id = started["item_id"]
    assert {stopped["item_id"], committed["item_id"], added["item"]["id"]} == {item_id}
    assert committed["previous_item_id"] is None
    delta, completed = talk.recognise(job, "one two")
    assert kinds([delta, completed]) == [f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed"]
    assert (delta["delta"], delta["item_id"], delta["content_index"]) == ("one two", item_id, 0)
    assert completed["transcript"] == "one two" and completed["item_id"] == item_id
    seconds = (job.end_ms - job.start_ms) / 1_000
    assert completed["usage"] == {"type": "duration", "seconds": pytest.approx(seconds)}
    talk.append(speech(500))
    following = talk.append(silence(1_000))[1]
    assert following["previous_item_id"] == item_id
    numbers = [event["event_id"] for event in (started, stopped, committed, delta, completed)]
    assert len(set(numbers)) == 5


def test_a_turn_that_the_client_commits_joins_its_segments() -> None:
    talk = Talk()
    talk.update(turn_detection=None)
    one = speech(500) + silence(1_000)
    assert talk.append(one + one + speech(400)) == []
    assert talk.starts[0].speech_events is False
    first, second = talk.jobs
    (delta,) = talk.recognise(first, "one")
    assert kinds([delta]) == [f"{TRANSCRIPTION}.delta"]
    events = talk.send("input_audio_buffer.commit")
    assert kinds(events) == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert events[0]["item_id"] == delta["item_id"]
    talk.recognise(second, "two")
    *_, completed = talk.recognise(talk.jobs[2], "three")
    assert completed["transcript"] == "one two three"
    assert completed["usage"]["seconds"] == pytest.approx(3.4)


def test_a_silent_turn_has_an_empty_transcript() -> None:
    talk = Talk()
    talk.update(turn_detection=None)
    talk.append(silence(500))
    *_, completed = talk.send("input_audio_buffer.commit")
    assert completed["type"] == f"{TRANSCRIPTION}.completed" and completed["transcript"] == ""


def test_transcripts_follow_each_other_in_order() -> None:
    talk = Talk()
    talk.update(turn_detection=None)
    ids = []
    for _ in range(2):
        talk.append(speech(500))
        ids.append(talk.send("input_audio_buffer.commit")[0]["item_id"])
    first, second = talk.jobs
    assert talk.recognise(second, "two") == []
    events = talk.recognise(first, "one")
    done = [event for event in events if event["type"].endswith("completed")]
    assert [(event["item_id"], event["transcript"]) for event in done] == [
        (ids[0], "one"),
        (ids[1], "two"),
    ]


def test_partial_results_are_deltas_of_their_item() -> None:
    talk = Talk()
    talk.update()
    (started,) = talk.append(speech(700))
    (partial,) = talk.sessions[0].jobs
    assert talk.recognise(partial, "one") == []
    talk.append(speech(700))
    partial = talk.sessions[0].jobs[-1]
    (delta,) = talk.recognise(partial, "one two")
    assert (delta["item_id"], delta["delta"]) == (started["item_id"], "one")
    talk.append(silence(1_000))
    delta, completed = talk.recognise(talk.jobs[0], "one two three")
    assert delta["delta"] == " two three" and completed["transcript"] == "one two three"


def test_a_commit_of_nothing_is_openais_error_and_changes_nothing() -> None:
    talk = Talk()
    (error,) = talk.send("input_audio_buffer.commit", event_id="mine")
    assert error["type"] == "error"
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"
    assert error["error"]["type"] == "invalid_request_error"
    assert error["error"]["event_id"] == "mine"
    talk.update(turn_detection=None)
    talk.append(speech(99))
    (error,) = talk.send("input_audio_buffer.commit")
    assert "99.00ms" in error["error"]["message"] and error["error"]["event_id"] is None
    talk.append(speech(500))
    assert kinds(talk.send("input_audio_buffer.commit"))[0] == "input_audio_buffer.committed"
    (error,) = talk.send("input_audio_buffer.commit")
    assert error["error"]["code"] == "input_audio_buffer_commit_empty"


def test_cleared_audio_has_no_transcript() -> None:
    talk = Talk()
    assert kinds(talk.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    talk.update(turn_detection=None)
    talk.append(speech(500) + silence(1_000) + speech(500))
    assert kinds(talk.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    (gone,) = talk.jobs
    assert talk.recognise(gone, "one") == []
    talk.append(speech(500, 2))
    talk.send("input_audio_buffer.commit")
    *_, completed = talk.recognise(talk.jobs[1], "two")
    assert completed["transcript"] == "two"


def test_a_failed_segment_fails_its_item() -> None:
    talk = Talk()
    talk.update(turn_detection=None)
    talk.append(speech(500))
    committed, *_ = talk.send("input_audio_buffer.commit")
    failure = Failure(code="chunk_failed", message="three workers were lost")
    result = result_of(talk.jobs[0], None, failure)
    (failed,) = talk.encoded(talk.sessions[0].feed(result))
    assert failed["type"] == f"{TRANSCRIPTION}.failed"
    assert failed["item_id"] == committed["item_id"]
    assert (failed["error"]["code"], failed["error"]["type"]) == ("chunk_failed", "server_error")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"pcm", "invalid_type"),
        (b"{\xff", "bad_message"),
        (b'{"type": "input_audio_buffer.commit"}', "input_audio_buffer_commit_empty"),
        ("{", "bad_message"),
        ("[]", "bad_message"),
        ("{}", "invalid_value"),
        ('{"type":"response.create"}', "invalid_value"),
        ('{"type":"input_audio_buffer.append"}', "invalid_type"),
        ('{"type":"input_audio_buffer.append","audio":"*"}', "bad_base64"),
        ('{"type":"session.update"}', "invalid_type"),
        ('{"type":"session.update","session":{"input_audio_format":"mp3"}}', "invalid_value"),
    ],
)
def test_errors_leave_the_connection_open(message: str | bytes, code: str) -> None:
    talk = Talk()
    for _ in range(5):
        (error,) = talk.say(message)
        assert error["type"] == "error" and error["error"]["code"] == code
    talk.update()
    assert kinds(talk.append(speech(500))) == ["input_audio_buffer.speech_started"]


def test_a_change_of_configuration_begins_another_session() -> None:
    talk = Talk()
    talk.update(transcription={"model": "demo", "language": "en"})
    talk.append(speech(500))
    talk.update(transcription={"language": "en"})
    assert len(talk.starts) == 1  # Nothing has changed.
    stopped, committed, *_, updated = talk.update(transcription={"language": "zh"})
    assert kinds([stopped, committed, updated]) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "session.updated",
    ]
    first = talk.sessions[0]
    completed = talk.recognise(first.jobs[-1], "one")[-1:]
    assert kinds(completed) == [f"{TRANSCRIPTION}.completed"]
    talk.encoded(first.tick(1.0))
    (started,) = talk.append(speech(500))
    assert [(start.language, start.model) for start in talk.starts] == [
        ("en", "demo"),
        ("zh", "demo"),
    ]
    assert talk.starts[0].session_id != talk.starts[1].session_id
    # Positions count from the beginning of the connection's audio.
    assert started["audio_start_ms"] == 500 and started["item_id"] != stopped["item_id"]


def test_a_change_waits_for_the_commit_of_what_is_in_the_buffer() -> None:
    talk = Talk()
    talk.update(turn_detection=None)
    talk.append(speech(500))
    assert kinds(talk.update(turn_detection=None, transcription={"language": "zh"})) == [
        "session.updated"
    ]
    (error,) = talk.update(format={"type": "audio/pcmu"})
    assert error["error"]["param"] == "session.audio.input.format"
    talk.append(speech(500))
    assert len(talk.starts) == 1
    talk.send("input_audio_buffer.commit")
    (completed,) = talk.recognise(talk.jobs[0], "one")[-1:]
    assert completed["transcript"] == "one"
    talk.encoded(talk.sessions[0].tick(1.0))
    talk.append(speech(500))
    assert [start.language for start in talk.starts] == ["", "zh"]


def test_a_refused_start_may_be_tried_again() -> None:
    talk = Talk()
    talk.update(transcription={"model": "big"})
    start, chunk = talk.dialect.parse(
        json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"})
    )
    assert isinstance(start, e.Start) and start.model == "big" and isinstance(chunk, e.Chunk)
    (error,) = talk.encoded([e.Problem(code="unknown_model", message="no model is called big")])
    assert error["error"]["code"] == "unknown_model"
    talk.update(transcription={"model": "gpt-4o-transcribe"})
    talk.append(speech(500))
    assert talk.starts[0].model == ""


def test_a_refused_start_is_one_error() -> None:
    talk = Talk()
    append = json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"})
    talk.dialect.parse(append)
    talk.encoded([e.Problem(code="unknown_model", message="no model is called big")])
    assert talk.dialect.parse(append) == (Ignored("refused_start"),)
    talk.update()
    start, _ = talk.dialect.parse(append)
    assert isinstance(start, e.Start)


def test_samples_of_another_form_are_told_while_the_session_continues() -> None:
    talk = Talk()
    talk.update(turn_detection=None)
    assert talk.append(speech(500)) == []
    talk.sessions[-1].notices = (Notice("other_samples", "these are floats"),)
    (updated,) = talk.append(speech(500))
    assert updated["type"] == "session.updated"
    assert updated["warnings"] == [{"code": "other_samples", "message": "these are floats"}]
    assert talk.append(speech(500)) == []


def test_missing_abilities_are_reported_once_the_model_is_known() -> None:
    talk = Talk()
    talk.update(transcription={"language": "xx", "prompt": "Kubernetes, kubectl"})
    start = talk.dialect._config.start("s")
    assert start.hotwords == ("Kubernetes", "kubectl")
    warnings = warnings_of(structs.replace(start, abilities=Abilities(languages=("en",))))
    talk.dialect.parse(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"}))
    started = e.Started(session_id="s", resume_token="", next_chunk_index=0, warnings=warnings)
    (event,) = talk.encoded([started])
    assert event["type"] == "session.updated"
    assert [warning["code"] for warning in event["warnings"]] == [
        "language_unknown",
        "hotwords_ignored",
    ]


def test_the_beta_has_its_own_events() -> None:
    talk = Talk(query={"intent": ["transcription"]}, headers={"openai-beta": "realtime=v1"})
    (created,) = talk.greeting
    assert created["type"] == "transcription_session.created"
    assert created["session"]["input_audio_format"] == "pcm16"
    # The reference has the fields in an object, the guide beside the type.
    (updated,) = talk.send(
        "transcription_session.update",
        session={"input_audio_format": "g711_ulaw", "turn_detection": None},
    )
    assert updated["type"] == "transcription_session.updated"
    (updated,) = talk.send("transcription_session.update", input_audio_format="g711_alaw")
    assert updated["session"]["input_audio_format"] == "g711_alaw"
    assert updated["session"]["turn_detection"] is None
    codes = bytes(range(256)) * 10
    talk.append(codes)
    assert talk.starts[0].declared == DeclaredAudio(sample_rate_hz=8_000, encoding="alaw")
    assert kinds(talk.send("input_audio_buffer.commit"))[:2] == [
        "input_audio_buffer.committed",
        "conversation.item.created",
    ]


def test_the_format_is_declared_and_the_audio_passed_on() -> None:
    talk = Talk()
    talk.update(format={"type": "audio/pcmu"})
    header = b"RIFF\xff\xff\xff\xffWAVEfmt "
    event = {"type": "input_audio_buffer.append", "audio": base64.b64encode(header).decode()}
    start, chunk = talk.dialect.parse(json.dumps(event))
    assert isinstance(start, e.Start) and isinstance(chunk, e.Chunk)
    assert start.declared == DeclaredAudio(sample_rate_hz=8_000, encoding="mulaw")
    assert chunk.data == header


def test_unknown_fields_of_the_first_event_that_has_any_are_warned_of() -> None:
    talk = Talk()
    audio = base64.b64encode(silence(100)).decode()
    talk.send("input_audio_buffer.append", audio=audio)
    (updated,) = talk.send("input_audio_buffer.append", audio=audio, sample_rate=8_000, x=1)
    (warning,) = updated["warnings"]
    assert warning["code"] == "field_ignored"
    assert warning["message"].endswith("input_audio_buffer.append without effect: sample_rate, x")
    assert talk.send("input_audio_buffer.append", audio=audio, y=1) == []


def test_an_intent_other_than_transcription_has_no_effect() -> None:
    for intent, known in (("transcription", True), ("conversation", False)):
        talk = Talk(query={"intent": [intent]})
        assert ("intent" in talk.dialect.parameters) is known


def test_the_beta_is_also_offered_as_a_subprotocol() -> None:
    talk = Talk(query={"model": ["gpt-4o"]}, subprotocols=["realtime", "openai-beta.realtime-v1"])
    assert kinds(talk.greeting) == ["session.created"]
    assert "input_audio_format" in talk.greeting[0]["session"]


def test_hanging_up_is_the_end_of_the_session() -> None:
    talk = Talk()
    assert talk.dialect.hung_up() == ()
    talk.append(speech(500))
    assert talk.dialect.hung_up() == (e.Finish(session_id=talk.starts[0].session_id),)


def test_names_of_openais_models_are_any_model() -> None:
    talk = Talk(query={"model": ["gpt-4o-mini-transcribe-2025-12-15"]})
    assert talk.dialect.served_name("gpt-realtime") == "" == talk.dialect.served_name("whisper-1")
    assert talk.dialect.served_name("demo") == "demo"
    talk.append(speech(500))
    assert talk.starts[0].model == ""


def test_a_problem_of_the_session_before_refuses_no_start() -> None:
    dialect = Realtime(Handshake(), lambda: "id")
    append = json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"})
    turns = {"type": "server_vad", "silence_duration_ms": 900}
    update = {"type": "session.update", "session": {"turn_detection": turns}}
    assert [type(event) for event in dialect.parse(append)] == [e.Start, e.Chunk]
    dialect.encode(e.Started(session_id="1", resume_token="", next_chunk_index=0))
    assert isinstance(dialect.parse(json.dumps(update))[0], e.Finish)
    # The first session ends with half a sample while the start of the second waits for it.
    assert [type(event) for event in dialect.parse(append)] == [e.Start, e.Chunk]
    dialect.encode(e.Problem(code="bad_audio", message="the audio ends within a sample"))
    dialect.encode(e.Finished(session_id="1", text="", duration_ms=0, chunk_count=1, stored=True))
    dialect.encode(e.Started(session_id="2", resume_token="", next_chunk_index=0))
    assert [type(event) for event in dialect.parse(append)] == [e.Chunk]


def test_a_flood_of_clear_is_bounded() -> None:
    dialect = Realtime(Handshake(), lambda: "id")
    dialect.parse(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"}))
    clear = json.dumps({"type": "input_audio_buffer.clear"})
    for _ in range(WAITING_MAX):
        assert dialect.parse(clear) == (e.EndUtterance(discard=True),)
        dialect.encode(e.SpeechEnded(end_ms=1_000, next_segment_index=1, requested=True))
    assert dialect.parse(clear) == (TOO_MANY,)


def test_an_event_in_a_binary_message_may_begin_with_a_byte_order_mark_or_spaces() -> None:
    for before in (b"\xef\xbb\xbf", b" \r\n"):
        dialect = Realtime(Handshake(), lambda: "id")
        append = json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA"}).encode()
        assert [type(event) for event in dialect.parse(before + append)] == [e.Start, e.Chunk]
