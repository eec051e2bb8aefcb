"""The pages' modules one by one, in a real browser: no server, but one that plays its part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute

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


def test_a_transcript_as_srt_and_text(page: Page) -> None:
    page.goto("/")
    srt, text, clocks = page.evaluate(
        """async () => {
            const { asSrt, asText, clock } = await import("/static/formats.js");
            const segments = [
                { start_ms: 0, end_ms: 1234.4, text: "one two" },
                { start_ms: 2000, end_ms: 3000, code: "deadline" },
                { start_ms: 3_725_040, end_ms: 3_726_000, text: "三四", speaker: 2 },
            ];
            return [asSrt(segments), asText(segments), [0, 65_400, 3_725_040].map(clock)];
        }"""
    )
    assert srt == (
        "1\n00:00:00,000 --> 00:00:01,234\none two\n\n"
        "2\n01:02:05,040 --> 01:02:06,000\nSpeaker 2: 三四\n"
    )
    assert text == "one two\n三四\n"
    assert clocks == ["0:00", "1:05", "1:02:05"]


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


def tell(socket: WebSocketRoute, kind: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


def acknowledge(socket: WebSocketRoute, token: str, *, at: int = 0, resumed: bool = False) -> None:
    status = "session_resumed" if resumed else "session_started"
    tell(socket, "ack", status=status, resume_token=token, next_chunk_index=at)


def segment(socket: WebSocketRoute, index: int) -> None:
    tell(
        socket,
        "chunk_result",
        segment_index=index,
        start_ms=1000 * index,
        end_ms=1000 * index + 900,
        text=f"text {index}",
    )


def finish(socket: WebSocketRoute) -> None:
    tell(socket, "final_result", text="all", duration=1.0, chunk_count=5, stored=True)
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
    """Tells a text, then the connection is lost."""
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


def test_an_unknown_session_starts_again_with_a_new_token(page: Page) -> None:
    server = Server([breaks_after_three, breaks_after_three, whole])
    outcome = talk(page, server)
    assert outcome["ended"]["text"] == "all"
    assert len(events(outcome, "restarted")) == 2
    assert numbers(server.chunks[2]) == [0, 1, 2, 3, 4]


def test_an_unavailable_resume_is_tried_again(page: Page) -> None:
    def unavailable(server: Server, socket: WebSocketRoute, message: Any) -> None:
        tell(socket, "error", code="resume_unavailable", message="the database is away")

    server = Server([breaks_after_three, unavailable, unavailable, whole])
    assert talk(page, server)["ended"]["text"] == "all"


@pytest.mark.parametrize("code", ["not_resumable", "deleted"])
def test_some_errors_are_the_end(page: Page, code: str) -> None:
    def ends(server: Server, socket: WebSocketRoute, message: Any) -> None:
        tell(socket, "error", code=code, message="no")

    outcome = talk(page, Server([breaks_after_three, ends]))
    assert outcome["ended"] == {"failed": code}
    assert events(outcome, "state")[-1] == "failed"


def test_an_id_that_is_taken_by_our_own_lost_start_is_replaced(page: Page) -> None:
    def lost(server: Server, socket: WebSocketRoute, message: Any) -> None:
        socket.close(code=1012)

    def taken(server: Server, socket: WebSocketRoute, message: Any) -> None:
        tell(socket, "error", code="session_exists", message="this session_id is taken")

    server = Server([lost, taken, whole])
    outcome = talk(page, server)
    assert outcome["ended"]["text"] == "all"
    assert len({start["session_id"] for start in server.starts}) == 2


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
            tell(socket, "error", code="bad_audio", message="half a sample")
            tell(socket, "error", code="deadline", message="late", segment_index=0)
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
