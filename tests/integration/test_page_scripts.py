"""The pages' modules one by one, in a real browser: no server, but one that plays its part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import Browser, FilePayload, Page, Route, WebSocketRoute, expect

from tests.gateway.web.static_pages import served_pages
from tests.integration.browser import running_browser

ORIGIN = "http://127.0.0.1:1"
PAGES = served_pages()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    def serve(route: Route) -> None:
        found = PAGES.get(route.request.url.rpartition("/")[2])
        if found is None:
            route.fulfill(content_type="text/html", body="<!doctype html><title>empty</title>")
        else:
            route.fulfill(content_type=found.media_type, body=found.content)

    context = browser.new_context(base_url=ORIGIN)
    context.set_default_timeout(20_000)
    visitor = context.new_page()
    visitor.route("**/*", serve)
    yield visitor
    context.close()


# ------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize("rate_hz", [48_000, 44_100, 16_000, 8_000])
def test_resampling_keeps_speech_and_folds_nothing_back(page: Page, rate_hz: int) -> None:
    """Gain in dB of tones, by how loud what comes out is."""
    page.goto("/")
    tones = [hz for hz in (100, 1_000, 3_400, 6_500, 9_000, 12_000, 20_000) if hz < rate_hz / 2]
    gains, lengths = page.evaluate(
        """async ([rate, tones]) => {
            const { Resampler } = await import("/static/resampler.js");
            const gains = [], lengths = [];
            for (const hz of tones) {
                const resampler = new Resampler(rate, 16000);
                const input = Float32Array.from({ length: rate }, (_, i) =>
                    0.5 * Math.sin((2 * Math.PI * hz * i) / rate));
                const output = [];
                // In the blocks in which an AudioWorklet gets it.
                for (let i = 0; i < rate; i += 128)
                    output.push(...resampler.push(input.subarray(i, i + 128)));
                output.push(...resampler.finish());
                lengths.push(output.length);
                const middle = output.slice(2000, 14000);
                const power = middle.reduce((sum, x) => sum + x * x, 0) / middle.length;
                gains.push(10 * Math.log10(power / 0.125 + 1e-12));
            }
            return [gains, lengths];
        }""",
        [rate_hz, tones],
    )
    assert all(abs(length - 16_000) <= 2 for length in lengths)
    for hz, gain_db in zip(tones, gains, strict=True):
        if hz < min(7_000, 0.45 * rate_hz):
            assert abs(gain_db) < 0.1, f"{hz} Hz: {gain_db} dB"
        elif hz > 8_500:
            assert gain_db < -60, f"{hz} Hz: {gain_db} dB"


def test_loud_samples_are_clipped(page: Page) -> None:
    page.goto("/")
    samples = page.evaluate(
        """async () => {
            const { toInt16 } = await import("/static/resampler.js");
            return [...toInt16(Float32Array.of(0, 1, -1, 1.5, -1.5, 0.5))];
        }"""
    )
    assert samples == [0, 32767, -32767, 32767, -32768, 16384]


def test_latency_is_counted_from_the_last_sound(page: Page) -> None:
    """Speech of 1 s, then silence, chunk by chunk; the text of 0 to 1.3 s comes at 1.8 s."""
    page.goto("/")
    first, unknown, median = page.evaluate(
        """async () => {
            const { LatencyMeter } = await import("/static/latency.js");
            const meter = new LatencyMeter();
            for (let chunk = 1; chunk <= 17; chunk += 1) {
                meter.heard(Array(5).fill(chunk <= 10 ? 0.2 : 0.001), 5000 + 100 * chunk);
            }
            const first = meter.measure(0, 1300, 5000 + 1800);
            return [first, meter.measure(90_000, 91_000, 9000), meter.median];
        }"""
    )
    assert first == pytest.approx(800, abs=1)
    assert unknown is None and median == first


def test_words_have_the_times_of_the_model_or_their_share(page: Page) -> None:
    page.goto("/")
    exact, shared, chinese = page.evaluate(
        """async () => {
            const { timedWords } = await import("/static/words.js");
            const times = (segment) =>
                timedWords({ start_ms: 1000, end_ms: 3000, ...segment })
                    .map(({ text, at, startMs, endMs }) => [text, at, startMs, endMs]);
            const tokens = [[1100, 1500], [2000, 2600]].map(([start_ms, end_ms]) =>
                ({ text: "?", start_ms, end_ms }));
            return [
                times({ text: "one, two.", tokens }),
                times({ text: "ab  cd", tokens: tokens.slice(1) }),
                times({ text: "你好，ok", tokens: [] }),
            ];
        }"""
    )
    assert exact == [["one,", 0, 1100, 1500], ["two.", 5, 2000, 2600]]
    assert shared == [["ab", 0, 1000, 2000], ["cd", 4, 2000, 3000]]
    assert [word[:2] for word in chinese] == [["你", 0], ["好，", 1], ["ok", 3]]


def test_a_recording_as_a_file_that_browsers_play(page: Page) -> None:
    page.goto("/")
    rate, seconds, loudest = page.evaluate(
        """async () => {
            const { wavOf } = await import("/static/wav.js");
            const chunk = Int16Array.from({ length: 1600 }, (_, i) => (i === 800 ? 16384 : 0));
            const bytes = await wavOf([chunk.buffer, chunk.buffer]).arrayBuffer();
            const context = new OfflineAudioContext(1, 1, 16000);
            const audio = await context.decodeAudioData(bytes);
            return [audio.sampleRate, audio.duration, Math.max(...audio.getChannelData(0))];
        }"""
    )
    assert (rate, seconds) == (16_000, pytest.approx(0.2))
    assert loudest == pytest.approx(0.5, abs=0.01)


def test_files_have_names_that_people_recognise(page: Page) -> None:
    page.goto("/")
    names = page.evaluate(
        """async () => {
            const { fileName } = await import("/static/exports.js");
            const startedAt = new Date(2026, 4, 3, 9, 5);
            return ["Team meeting.v2.mp3", "", "a/b:c.wav"].map(
                (name) => fileName({ name, startedAt }, "srt"));
        }"""
    )
    assert names == [
        "2026-05-03_09-05_Team meeting.v2.srt",
        "2026-05-03_09-05_recording.srt",
        "2026-05-03_09-05_a_b_c.srt",
    ]


# ----------------------------------------------------------------------------------- the protocol


@dataclass
class Server:
    """Answers each connection with the next of ``scripts``, a function that answers a message.
    Received messages are kept by connection."""

    scripts: list[Callable[[Server, WebSocketRoute, Any], None]]
    addresses: list[str] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[list[bytes]] = field(default_factory=list)

    def connect(self, socket: WebSocketRoute) -> None:
        script = self.scripts[len(self.chunks)]
        self.chunks.append([])
        self.addresses.append(socket.url)

        def take(message: str | bytes) -> None:
            if isinstance(message, bytes):
                self.chunks[-1].append(message)
                script(self, socket, message)
                return
            fields = json.loads(message)
            if fields["action"] == "start":
                self.starts.append(fields)
            script(self, socket, fields)

        socket.on_message(take)


def server_sends(socket: WebSocketRoute, kind: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


def acknowledge(socket: WebSocketRoute, token: str, *, at: int = 0, resumed: bool = False) -> None:
    status = "session_resumed" if resumed else "session_started"
    server_sends(socket, "ack", status=status, resume_token=token, next_chunk_index=at)


def segment(socket: WebSocketRoute, index: int) -> None:
    server_sends(
        socket,
        "chunk_result",
        segment_index=index,
        start_ms=1000 * index,
        end_ms=1000 * index + 900,
        text=f"text {index}",
    )


def finish(socket: WebSocketRoute) -> None:
    server_sends(socket, "final_result", text="all", duration=1.0, chunk_count=5, stored=True)
    socket.close(code=1000)


def action(message: Any) -> str:
    return "chunk" if isinstance(message, bytes) else str(message["action"])


def whole(server: Server, socket: WebSocketRoute, message: Any) -> None:
    """A server that nothing happens to."""
    if action(message) == "start":
        acknowledge(socket, "token-1")
    elif action(message) == "finish":
        segment(socket, 0)
        segment(socket, 1)
        finish(socket)


def breaks_after_three(server: Server, socket: WebSocketRoute, message: Any) -> None:
    """Sends a text, then the connection is lost."""
    if action(message) == "start":
        acknowledge(socket, "token-1")
    elif len(server.chunks[-1]) == 3:
        segment(socket, 0)
        socket.close(code=1012)


def talk(page: Page, server: Server, *, bytes_max: int = 1_000, refusals: int = 0) -> Any:
    """A session of five chunks of 100 bytes with ``server``; how it ended, and its events."""
    page.route_web_socket("**/ws/asr*", server.connect)
    page.goto("/")
    return page.evaluate(
        """async ([bytesMax, refusals]) => {
            const { AsrSession } = await import("/static/asr-client.js");
            const { LiveSource } = await import("/static/sources.js");
            const source = new LiveSource(bytesMax);
            for (let i = 0; i < 5; i += 1) source.push(new Uint8Array(100).fill(i));
            const whyRefused = async () => refusals-- > 0
                ? { code: "overloaded", message: "", retryAfterS: 0.1 } : null;
            const url = location.origin.replace("http", "ws") + "/ws/asr";
            const session = new AsrSession({ url, source, whyRefused });
            const events = [];
            for (const name of ["state", "refused", "restarted", "partial", "segment", "problem"])
                session.addEventListener(name, ({ detail }) => events.push([name, detail]));
            source.end();
            const ended = await session.run().catch(({ code }) => ({ failed: code }));
            return { ended, events, id: session.sessionId };
        }""",
        [bytes_max, refusals],
    )


def events(outcome: Any, name: str) -> list[Any]:
    return [detail for kind, detail in outcome["events"] if kind == name]


def numbers(chunks: list[bytes]) -> list[int]:
    assert all(len(chunk) == 100 for chunk in chunks)
    return [chunk[0] for chunk in chunks]


def test_a_session_from_start_to_final_result(page: Page) -> None:
    server = Server([whole])
    outcome = talk(page, server)
    assert outcome["ended"]["text"] == "all"
    assert numbers(server.chunks[0]) == [0, 1, 2, 3, 4]
    assert [s["text"] for s in events(outcome, "segment")] == ["text 0", "text 1"]
    assert events(outcome, "state") == ["connecting", "live", "finishing", "done"]
    assert server.starts == [
        {"action": "start", "session_id": outcome["id"], "partials": True},
    ]


def test_a_lost_connection_is_resumed_where_the_server_says(page: Page) -> None:
    """Another gateway requests two chunks again, and repeats a result that the page has."""

    def resumes(server: Server, socket: WebSocketRoute, message: Any) -> None:
        if action(message) == "start":
            acknowledge(socket, "token-2", at=1, resumed=True)
            segment(socket, 0)
        elif action(message) == "finish":
            segment(socket, 1)
            finish(socket)

    server = Server([breaks_after_three, resumes])
    outcome = talk(page, server)
    assert outcome["ended"]["text"] == "all"
    assert server.starts[1]["session_id"] == outcome["id"]
    assert server.starts[1]["resume_token"] == "token-1"
    assert [urlsplit(address).query for address in server.addresses] == [
        "",
        f"resume={outcome['id']}",
    ]
    assert server.starts[1]["next_segment_index"] == 1
    assert numbers(server.chunks[1]) == [1, 2, 3, 4]
    assert [s["text"] for s in events(outcome, "segment")] == ["text 0", "text 1"]
    assert events(outcome, "state")[-4:] == ["reconnecting", "live", "finishing", "done"]
    assert not events(outcome, "restarted")


def test_a_session_continues_after_a_reload(page: Page) -> None:
    """Its texts are sent again, and what is recorded from now on follows what the server has."""

    def resumes(server: Server, socket: WebSocketRoute, message: Any) -> None:
        if action(message) == "start":
            acknowledge(socket, "token-2", at=7, resumed=True)
            segment(socket, 0)
        elif action(message) == "finish":
            finish(socket)

    server = Server([resumes])
    page.route_web_socket("**/ws/asr*", server.connect)
    page.goto("/")
    started, texts = page.evaluate(
        """async () => {
            const { AsrSession } = await import("/static/asr-client.js");
            const { LiveSource } = await import("/static/sources.js");
            const source = new LiveSource();
            const session = new AsrSession({
                url: location.origin.replace("http", "ws") + "/ws/asr",
                source, sessionId: "kept", token: "token-1",
            });
            const [started, texts] = [[], []];
            session.addEventListener("started", ({ detail }) => {
                started.push(detail);
                source.startAt(detail.nextChunk);
            });
            session.addEventListener("segment", ({ detail }) => texts.push(detail.text));
            source.push(new Uint8Array(100).fill(1)); // before the answer
            source.end();
            await session.run();
            return [started, texts];
        }"""
    )
    assert started == [{"token": "token-2", "nextChunk": 7, "warnings": []}]
    assert texts == ["text 0"]
    assert server.starts[0]["resume_token"] == "token-1"
    assert server.starts[0]["next_segment_index"] == 0
    assert numbers(server.chunks[0]) == [1]


@pytest.mark.parametrize("code", ["bad_message", "unknown_model"])
def test_a_start_that_the_server_refuses_is_the_end(page: Page, code: str) -> None:
    def refuses(server: Server, socket: WebSocketRoute, message: Any) -> None:
        server_sends(socket, "error", code=code, message="hotwords: at most 200 words")

    assert talk(page, Server([refuses]))["ended"] == {"failed": code}


def test_an_unknown_session_starts_again_with_a_new_token(page: Page) -> None:
    server = Server([breaks_after_three, breaks_after_three, whole])
    outcome = talk(page, server)
    assert outcome["ended"]["text"] == "all"
    assert len(events(outcome, "restarted")) == 2
    assert numbers(server.chunks[2]) == [0, 1, 2, 3, 4]


def test_an_unavailable_resume_is_tried_again(page: Page) -> None:
    def unavailable(server: Server, socket: WebSocketRoute, message: Any) -> None:
        server_sends(socket, "error", code="resume_unavailable", message="the database is away")

    server = Server([breaks_after_three, unavailable, unavailable, whole])
    assert talk(page, server)["ended"]["text"] == "all"


@pytest.mark.parametrize("code", ["not_resumable", "deleted"])
def test_some_errors_are_the_end(page: Page, code: str) -> None:
    def ends(server: Server, socket: WebSocketRoute, message: Any) -> None:
        server_sends(socket, "error", code=code, message="no")

    outcome = talk(page, Server([breaks_after_three, ends]))
    assert outcome["ended"] == {"failed": code}
    assert events(outcome, "state")[-1] == "failed"


def lost(server: Server, socket: WebSocketRoute, message: Any) -> None:
    socket.close(code=1012)


def taken(server: Server, socket: WebSocketRoute, message: Any) -> None:
    server_sends(socket, "error", code="session_exists", message="this session_id is taken")


def test_an_id_that_is_taken_by_our_own_lost_start_is_replaced(page: Page) -> None:
    server = Server([lost, taken, whole])
    outcome = talk(page, server)
    assert outcome["ended"]["text"] == "all"
    assert len({start["session_id"] for start in server.starts}) == 2


def run_file(page: Page, server: Server, script: str = "await item.runFile();") -> Any:
    """A transcription of a file with ``server``: its state, id and name, after ``script``."""
    page.route_web_socket("**/ws/asr*", server.connect)
    page.goto("/")
    return page.evaluate(
        """async (script) => {
            const { Transcription } = await import("/static/transcription.js");
            const { nameOf } = await import("/static/remembered.js");
            const file = new File(["RIFF    WAVE", new Uint8Array(99)], "a.wav");
            const item = new Transcription({ file });
            const AsyncFunction = (async () => {}).constructor;
            await new AsyncFunction("item", "file", script)(item, file);
            const { state, sessionId } = item;
            return { state, sessionId, name: nameOf(sessionId) };
        }""",
        script,
    )


def test_a_transcription_has_the_id_and_name_of_the_session_that_replaced_its_first(
    page: Page,
) -> None:
    server = Server([lost, taken, whole])
    outcome = run_file(page, server)
    assert outcome == {
        "state": "done",
        "sessionId": server.starts[-1]["session_id"],
        "name": "a.wav",
    }


def test_a_file_that_is_given_up_while_the_browser_reads_it_is_not_sent(page: Page) -> None:
    """Another one may be transcribed by then."""
    server = Server([])
    outcome = run_file(
        page,
        server,
        """
            let read;
            const head = file.slice(0, 12);
            const reading = new Promise((resolve) => { read = resolve; });
            file.slice = () => ({ arrayBuffer: () => reading });
            const running = item.runFile();
            item.leave();
            read(await head.arrayBuffer());
            await running;
        """,
    )
    assert outcome["state"] == "left"
    assert not server.addresses


def test_a_replay_of_dropped_audio_fails(page: Page) -> None:
    outcome = talk(page, Server([whole]), bytes_max=300)
    assert outcome["ended"] == {"failed": "replay_gone"}


def test_a_refusal_is_reported_and_retried(page: Page) -> None:
    def refuses(server: Server, socket: WebSocketRoute, message: Any) -> None:
        socket.close(code=1013)

    outcome = talk(page, Server([refuses, refuses, whole]), refusals=2)
    assert outcome["ended"]["text"] == "all"
    assert [refusal["code"] for refusal in events(outcome, "refused")] == ["overloaded"] * 2


@pytest.mark.parametrize("code", [1008, 1009])
def test_some_closes_are_the_end(page: Page, code: int) -> None:
    def closes(server: Server, socket: WebSocketRoute, message: Any) -> None:
        socket.close(code=code)

    assert talk(page, Server([closes]))["ended"] == {"failed": f"close_{code}"}


def test_a_permanent_refusal_ends_the_session_and_each_attempt_sends_the_current_token(
    page: Page,
) -> None:
    page.route_web_socket("**/ws/asr", lambda socket: socket.close(code=1013))
    page.goto("/")
    found = page.evaluate(
        """async () => {
            const { AsrSession } = await import("/static/asr-client.js");
            const { LiveSource } = await import("/static/sources.js");
            const offered = [];
            window.WebSocket = class extends WebSocket {
                constructor(url, protocols) { super(url); offered.push(protocols); }
            };
            const answers = [{ code: "overloaded", retryAfterS: 0.1 },
                             { code: "unauthorized", retryAfterS: null }];
            const session = new AsrSession({
                url: location.origin.replace("http", "ws") + "/ws/asr",
                source: new LiveSource(),
                whyRefused: async () => answers.shift(),
                protocols: () => ["asr", `bearer.${answers.length}`],
            });
            return [await session.run().catch(({ code }) => code), session.state, offered];
        }"""
    )
    assert found == ["unauthorized", "failed", [["asr", "bearer.2"], ["asr", "bearer.1"]]]


def test_failed_segments_count_and_other_errors_end_nothing(page: Page) -> None:
    def troubled(server: Server, socket: WebSocketRoute, message: Any) -> None:
        if action(message) == "start":
            acknowledge(socket, "token-1")
        elif action(message) == "finish":
            server_sends(socket, "error", code="bad_audio", message="half a sample")
            server_sends(socket, "error", code="deadline", message="late", segment_index=0)
            segment(socket, 1)
            finish(socket)

    outcome = talk(page, Server([troubled]))
    assert [problem["code"] for problem in events(outcome, "problem")] == ["bad_audio"]
    assert [s["segment_index"] for s in events(outcome, "segment")] == [0, 1]


def test_session_ids_without_a_secure_context(page: Page) -> None:
    page.goto("/")
    found = page.evaluate(
        """async () => {
            const { newSessionId } = await import("/static/asr-client.js");
            crypto.randomUUID = undefined;
            return Array.from({ length: 50 }, newSessionId);
        }"""
    )
    assert len(set(found)) == 50
    assert all(len(one) == 36 and one[14] == "4" and one[19] in "89ab" for one in found)


# --------------------------------------------------------------------------- what the page asks for


def serve_home(page: Page) -> None:
    home = PAGES["index.html"]
    page.route("**/", lambda route: route.fulfill(body=home.content, content_type="text/html"))


ABILITIES = {
    "languages": ["en", "zh"],
    "takes_language": True,
    "hotwords": "bias",
    "speakers": True,
}


def test_options_are_sent_and_warnings_and_tags_are_shown(page: Page) -> None:
    """Two models: a choice of either. The second one has no use for hotwords."""

    def answers(server: Server, socket: WebSocketRoute, message: Any) -> None:
        if action(message) == "start":
            warning = {"code": "language_ignored", "message": "no"}
            odd = {"code": "of_a_newer_server", "message": "its words"}
            server_sends(
                socket,
                "ack",
                status="session_started",
                resume_token="t",
                next_chunk_index=0,
                warnings=[warning, odd],
            )
            for index, speaker in enumerate([1, 2]):
                server_sends(
                    socket,
                    "chunk_result",
                    segment_index=index,
                    start_ms=0,
                    end_ms=900,
                    text="hello",
                    speaker=speaker,
                    confidence=0.923,
                    emotion="happy",
                    events=["laughter"],
                )
        elif action(message) == "finish":
            finish(socket)

    server = Server([answers])
    served = [
        {"name": "large", "abilities": ABILITIES},
        {"name": "small", "abilities": {**ABILITIES, "hotwords": "none"}},
    ]
    page.route_web_socket("**/ws/asr*", server.connect)
    serve_home(page)
    health = {"status": "ok", "models": [], "served": served}
    page.route("**/api/v1/health", lambda route: route.fulfill(json=health))
    page.route("**/api/v1/history*", lambda route: route.fulfill(json={"records": []}))
    page.goto("/")
    page.get_by_text("Options").click()
    page.get_by_label("Spoken language").select_option(label="Chinese")
    page.get_by_label("Words to expect").fill("Kumru, 北京、 Ørsted ,")
    page.get_by_label("Model").select_option("large")
    page.set_input_files(
        "#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"RIFF    WAVE" + bytes(99)}
    )
    page.wait_for_selector("body[data-state=done]")
    start = server.starts[0]
    assert start["model"] == "large" and start["language"] == "zh" and start["speakers"]
    assert start["hotwords"] == ["Kumru", "北京", "Ørsted"]
    warnings = page.locator("#warnings p").all_text_contents()
    assert warnings == [
        "The model takes no language; the choice has no effect.",
        "its words",
    ]
    line = page.locator("#lines .line").first
    assert line.locator(".tag").all_text_contents() == ["happy", "laughter"]
    assert line.locator(".confidence").text_content() == "92 %"
    colours = page.locator(".speaker").evaluate_all(
        "all => all.map(e => getComputedStyle(e).color)"
    )
    assert len(set(colours)) == 2
    page.get_by_label("Model").select_option("small")
    assert page.get_by_label("Words to expect").is_hidden()
    page.reload()
    page.get_by_text("Options").click()
    assert page.get_by_label("Spoken language").input_value() == "zh"


def test_the_history_has_pages_and_is_searched_while_typing(page: Page) -> None:
    asked: list[dict[str, str]] = []

    def answer(route: Route) -> None:
        query = dict(parse_qsl(urlsplit(route.request.url).query))
        asked.append(query)
        first = int(query.get("cursor", 0))
        records = [
            {
                "session_id": f"s{number}",
                "preview": f"text {number} {query.get('q', '')}",
                "created_at": "2026-05-03T09:05:00Z",
                "duration": 61,
                "status": "completed",
            }
            for number in range(first, first + 2)
        ]
        cursor = str(first + 2) if first < 2 else None
        route.fulfill(json={"records": records, "next_cursor": cursor})

    serve_home(page)
    page.route("**/api/v1/history*", answer)
    page.goto("/")
    texts = page.locator("#history .history-text")
    more = page.get_by_role("button", name="More")
    expect(texts).to_have_count(2)
    more.click()
    expect(texts).to_have_count(4)
    expect(page.locator("#history .history-view").nth(2)).to_be_focused()
    assert more.is_hidden()
    # Within one task of the browser: between keys, a busy machine may take longer than a pause.
    page.get_by_role("searchbox").evaluate(
        """(field, text) => {
            for (const letter of text) {
                field.value += letter;
                field.dispatchEvent(new InputEvent("input", { bubbles: true }));
            }
        }""",
        "wor 天 ab",
    )
    expect(texts.first).to_have_text("text 0 wor 天 ab*")
    assert len(asked) < 6, "not a request for each letter"
    page.get_by_role("searchbox").fill("天气")
    expect(texts.first).to_have_text("text 0 天气")
    page.route("**/api/v1/history*", lambda route: route.fulfill(json={"records": []}))
    page.get_by_role("searchbox").fill("nothing")
    expect(page.locator("#history-note")).to_have_text("No text has these words.")
    page.route("**/api/v1/history*", answer)
    page.get_by_role("searchbox").fill("")
    expect(texts).to_have_count(2)
    refusal = {"code": "invalid_request", "message": "q: no letter or digit to search for"}
    page.route("**/api/v1/history*", lambda route: route.fulfill(status=422, json=refusal))
    page.get_by_role("searchbox").fill("😀")
    expect(page.locator("#history-note")).to_have_text("No text has these words.")
    expect(texts).to_have_count(0)


def test_the_history_is_not_called_empty_before_it_is_known(page: Page) -> None:
    waiting: list[Route] = []
    serve_home(page)
    page.route("**/api/v1/history*", lambda route: waiting.append(route))
    with page.expect_request("**/api/v1/history*"):
        page.goto("/")
    assert page.locator("#history-note").is_hidden()
    page.get_by_role("button", name="中文").click()
    assert page.locator("#history-note").is_hidden()
    waiting[0].fulfill(json={"records": []})
    expect(page.locator("#history-note")).to_be_visible()


def test_the_shown_one_of_many_files_is_in_view(page: Page) -> None:
    serve_home(page)
    page.route("**/api/v1/history*", lambda route: route.fulfill(json={"records": []}))
    page.goto("/")
    files = [FilePayload(name=f"{n}.wav", mimeType="audio/wav", buffer=b"") for n in range(12)]
    page.set_input_files("#file", files)
    expect(page.locator("#queue [data-state=failed]")).to_have_count(12)
    shown = page.locator("#queue li:has([aria-pressed=true])")
    box, list_box = shown.bounding_box(), page.locator("#queue").bounding_box()
    assert box and list_box
    assert list_box["y"] <= box["y"]
    assert box["y"] + box["height"] <= list_box["y"] + list_box["height"]


def view_s1(page: Page) -> None:
    """Show a stored session of two segments."""
    record = {"session_id": "s1", "created_at": "2026-05-03T09:05:00Z", "duration": 2}
    segments = [
        {"segment_index": n, "start_ms": 1000 * n, "end_ms": 1000 * n + 900, "text": text}
        for n, text in enumerate(["one", "two"])
    ]
    listed = {**record, "preview": "one two", "status": "completed"}
    serve_home(page)
    page.route("**/api/v1/history*", lambda route: route.fulfill(json={"records": [listed]}))
    stored = {**record, "live": False, "segments": segments}
    page.route("**/api/v1/session/s1", lambda route: route.fulfill(json=stored))
    page.goto("/")
    page.get_by_role("button", name="View the session").click()
    expect(page.locator("#lines .line")).to_have_count(2)


def test_sessions_without_a_text_say_why(page: Page) -> None:
    record = {"preview": "", "created_at": "2026-05-03T09:05:00Z", "duration": 2}
    statuses = ["completed", "active", "failed"]
    records = [{**record, "session_id": status, "status": status} for status in statuses]
    records.append({**records[0], "session_id": "mute", "segment_count": 1})
    records.append({**records[0], "session_id": "empty", "duration": 0})
    serve_home(page)
    page.route("**/api/v1/history*", lambda route: route.fulfill(json={"records": records}))
    running = {**records[1], "live": True, "segments": []}
    page.route("**/api/v1/session/active", lambda route: route.fulfill(json=running))
    error = {"code": "bad_audio", "message": "the WAV file has no samples"}
    failed = {**records[2], "live": False, "segments": [], "error": error}
    page.route("**/api/v1/session/failed", lambda route: route.fulfill(json=failed))
    page.goto("/")
    texts = page.locator("#history .history-text")
    said = ["(no speech)", "(still running)", "(no text)", "(no text)", "(no audio)"]
    expect(texts).to_have_text(said)
    page.locator("#history .history-view").nth(2).click()
    expect(page.locator("#problem")).to_have_text("This audio cannot be decoded.")
    expect(page.locator("#state")).to_have_text("Stopped")
    page.locator("#history .history-view").nth(1).click()
    expect(page.locator("#state")).to_contain_text("Still running")


def test_a_stored_text_enters_the_list_with_its_first_edit(page: Page) -> None:
    """A line that is emptied stays, until its new text is typed."""
    view_s1(page)
    expect(page.locator("#queue li")).to_have_count(0)
    page.get_by_role("button", name="Edit", exact=True).click()
    line = page.get_by_role("textbox", name="Text at 0:00")
    line.fill("")
    expect(page.locator("#queue li")).to_have_count(1)
    expect(page.locator("#warnings")).to_contain_text("this browser keeps your text")
    expect(line).to_be_focused()
    line.press_sequentially("three")
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator("#lines .words")).to_have_text(["three", "two"])


def edit_first(page: Page, text: str) -> None:
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_role("textbox", name="Text at 0:00").fill(text)
    page.get_by_role("button", name="Edit", exact=True).click()


def test_edits_outlive_the_page_and_are_exported(page: Page) -> None:
    view_s1(page)
    edit_first(page, "nine")
    view_s1(page)  # loads the page again
    expect(page.locator("#lines .words")).to_have_text(["nine", "two"])
    expect(page.locator("#warnings")).to_contain_text("of the last 100 edited sessions")
    exported: list[Any] = []

    def export(route: Route) -> None:
        exported.append(route.request.post_data_json)
        route.fulfill(body="")

    page.route("**/api/v1/export*", export)
    with page.expect_download():
        page.locator("[data-download=text]").click()
    assert [segment["text"] for segment in exported[0]["segments"]] == ["nine", "two"]
    edit_first(page, "nine two")
    page.get_by_role("button", name="off this list").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Drop").click()
    view_s1(page)
    expect(page.locator("#lines .words")).to_have_text(["one", "two"])


def test_edits_of_the_newest_sessions_are_kept(page: Page) -> None:
    page.goto("/")
    kept = page.evaluate("""async () => {
        const { EDITED_MAX, dropEdits, editsOf, keepEdit } = await import("/static/remembered.js");
        for (let n = 0; n <= EDITED_MAX; n++) keepEdit(`s${n}`, 0, `text ${n}`);
        dropEdits("s2");
        return [0, 1, 2, EDITED_MAX].map((n) => editsOf(`s${n}`));
    }""")
    assert kept == [{}, {"0": "text 1"}, {}, {"0": "text 100"}]


def test_edits_that_the_browser_does_not_keep_are_reported(page: Page) -> None:
    page.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('full'); };")
    view_s1(page)
    edit_first(page, "nine")
    expect(page.locator("#warnings")).to_contain_text("Edited on this page")


def test_the_microphone_can_be_chosen(page: Page) -> None:
    page.context.grant_permissions(["microphone"])
    serve_home(page)
    page.goto("/")
    # Browsers reveal names once the microphone was allowed.
    page.evaluate(
        """() => navigator.mediaDevices.getUserMedia({ audio: true })
            .then(() => navigator.mediaDevices.dispatchEvent(new Event("devicechange")))"""
    )
    page.get_by_text("Options").click()
    chosen = page.locator("#device")
    chosen.locator("option").nth(2).wait_for(state="attached")
    assert chosen.locator("option").first.text_content() == "Default"
    chosen.select_option(index=2)
    wanted = page.evaluate(
        """() => new Promise((resolve) => {
            navigator.mediaDevices.getUserMedia = async ({ audio }) => {
                resolve(audio.deviceId.ideal);
                throw new DOMException("", "NotAllowedError");
            };
            document.querySelector("#record").click();
        })"""
    )
    assert wanted == chosen.input_value()
