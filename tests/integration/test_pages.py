"""The two pages in a real browser, against a running system. Screenshots stay in
build/screenshots."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import (
    Browser,
    FilePayload,
    Page,
    Route,
    WebSocketRoute,
    expect,
)

from tests.integration.browser import (
    WAIT_MS,
    WIDTHS,
    assert_accessible,
    assert_fits,
    look_at,
    running_browser,
    screenshot,
    size,
    violations,
    visiting,
    write_recording,
)
from tests.integration.speech import Spoken, spoken
from tools.lab.digit_speech import expected_text, speak
from tools.lab.encoded_audio import encode
from tools.lab.harness.stack import Stack

DIGITS, VOICE = "925173", "en_slt"


@pytest.fixture(scope="module")
def said() -> Spoken:
    pcm = speak(DIGITS, VOICE, random.Random(5), pause_every=3)
    return Spoken(pcm, expected_text(DIGITS, VOICE))


@pytest.fixture(scope="module")
def browser(said: Spoken, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    recording = write_recording(tmp_path_factory.mktemp("microphone") / "said.wav", said)
    with running_browser(recording) as running:
        yield running


@pytest.fixture
def page(browser: Browser, stack: Stack) -> Iterator[Page]:
    with visiting(browser, stack.http_url()) as visitor:
        yield visitor


def lines(page: Page) -> str:
    return " ".join(page.locator("#lines .words").all_text_contents())


def wait_for_state(page: Page, state: str) -> None:
    page.wait_for_selector(f"body[data-state={state}]")


def start_speaking(page: Page) -> None:
    page.get_by_role("button", name="Start the microphone").click()


def wait_for_all_words(page: Page, audio: Spoken) -> None:
    """Until the final lines hold as many words as were said."""
    page.wait_for_function(
        "count => document.querySelector('#lines').textContent.split(/\\s+|\\d+:\\d+/)"
        ".filter(Boolean).length >= count",
        arg=len(audio.text.split()),
        timeout=len(audio.pcm) / 16 + WAIT_MS,
    )


def test_speak_see_find_and_delete(page: Page, said: Spoken) -> None:
    page.goto("/")
    page.evaluate(
        """() => {
            window.partials = [];
            const partial = document.querySelector("#partial");
            new MutationObserver(() => window.partials.push(partial.textContent))
                .observe(partial, {childList: true, characterData: true, subtree: true});
        }"""
    )
    start_speaking(page)
    wait_for_state(page, "live")
    page.wait_for_selector("#partial:not([hidden])")
    screenshot(page, "speaking")
    page.wait_for_selector("#level:not([aria-valuenow='0'])")
    assert_accessible(page)
    wait_for_all_words(page, said)
    page.get_by_role("button", name="Stop").click()
    wait_for_state(page, "done")
    assert lines(page) == said.text
    partials = [text for text in page.evaluate("window.partials") if text]
    assert partials
    assert page.locator("#lines time").first.text_content() == "0:00"
    assert re.match(r"\d+ ms, median \d+ ms", page.locator("#latency").text_content() or "")
    expect(page.locator("#state")).to_have_text("Done, stored")
    newest = page.locator("#history li").first
    expect(newest.locator(".history-text")).to_have_text(said.text)
    look_at(page, "spoken")
    page.get_by_role("button", name="中文").click()
    expect(newest.locator(".history-view")).to_have_text("查看")
    page.get_by_role("button", name="English").click()
    page.get_by_role("button", name="Take Recording").click()
    expect(page.locator("#lines .line")).to_have_count(0)
    newest.get_by_role("button", name="View the session").click()
    expect(page.locator("#state")).to_have_text("Done, stored")
    assert lines(page) == said.text
    assert_accessible(page)
    session_id = newest.get_attribute("data-session")
    newest.get_by_role("button", name="Delete the session").click()
    # The harmless answer has the focus.
    expect(page.get_by_role("button", name="Cancel")).to_be_focused()
    assert_accessible(page)
    page.get_by_role("alertdialog").get_by_role("button", name="Delete").click()
    expect(page.locator(f"[data-session='{session_id}']")).to_have_count(0)
    page.reload()
    page.wait_for_selector("#history[data-loaded]", state="attached")
    expect(page.locator(f"[data-session='{session_id}']")).to_have_count(0)


def test_a_lost_connection_loses_no_word(page: Page, said: Spoken) -> None:
    """The network breaks in the middle of a word; the gateway lives on."""
    connections: list[WebSocketRoute] = []

    def pass_on(socket: WebSocketRoute) -> None:
        connections.append(socket)
        socket.connect_to_server()

    page.route_web_socket("**/ws/asr*", pass_on)
    page.goto("/")
    start_speaking(page)
    page.wait_for_selector("#partial:not([hidden])")
    connections[0].close(code=1012)
    wait_for_state(page, "reconnecting")
    expect(page.locator("#state")).to_have_text("Reconnecting… what you say is kept")
    wait_for_state(page, "live")
    wait_for_all_words(page, said)
    page.get_by_role("button", name="Stop").click()
    wait_for_state(page, "done")
    assert lines(page) == said.text
    assert len(connections) == 2


@pytest.fixture
def own_gateway(stack: Stack) -> Iterator[Stack]:
    """A further gateway of the same pipeline, ``gateway7``, that a test may kill."""
    stack.start("gateway7")
    stack.wait_ready("gateway7")
    yield stack
    with stack.processes.pop("gateway7"):
        pass


def test_a_killed_gateway_loses_no_word(page: Page, own_gateway: Stack, said: Spoken) -> None:
    """The session continues at the next gateway with that address, from the audio that the page
    kept."""
    page.goto(own_gateway.http_url("gateway7"))
    start_speaking(page)
    page.wait_for_selector("#lines .line")
    page.wait_for_selector("#partial:not([hidden])")
    own_gateway.processes["gateway7"].kill()
    wait_for_state(page, "reconnecting")
    screenshot(page, "reconnecting")
    assert_accessible(page)
    own_gateway.start("gateway7", PORT=str(own_gateway.ports["gateway7"]))
    own_gateway.wait_ready("gateway7")
    wait_for_state(page, "live")
    wait_for_all_words(page, said)
    page.get_by_role("button", name="Stop").click()
    wait_for_state(page, "done")
    assert lines(page) == said.text
    screenshot(page, "resumed")


@pytest.mark.parametrize("container", ["wav", "webm", "mp3"])
def test_a_file_and_its_downloads(page: Page, stack: Stack, container: str) -> None:
    audio = spoken(71, voice="en_rms", digits=(6, 6))
    page.goto("/")
    data = encode(audio.pcm, container, 48_000 if container == "webm" else 16_000, 1)
    name = f"speech.{container}"
    page.set_input_files(
        "#file", {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    )
    wait_for_state(page, "done")
    assert lines(page) == audio.text
    assert "real time" in (page.locator("#latency").text_content() or "")
    # The history is read again when the session has ended.
    expect(page.locator("#history .history-name").first).to_have_text(name)
    session_id = page.locator("#history li").first.get_attribute("data-session")
    stem = r"\d{4}-\d\d-\d\d_\d\d-\d\d_speech"
    for kind, suffix in {"text": "txt", "srt": "srt", "vtt": "vtt", "json": "json"}.items():
        with page.expect_download() as download:
            page.locator(f"[data-download={kind}]").click()
        assert re.fullmatch(rf"{stem}\.{suffix}", download.value.suggested_filename)
        url = f"{stack.http_url()}/api/v1/session/{session_id}?format={kind}"
        assert Path(download.value.path()).read_bytes() == page.request.get(url).body()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator("#said")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()").split() == audio.text.split()


def speech_file(name: str, audio: Spoken) -> FilePayload:
    data = encode(audio.pcm, "wav", 16_000, 1)
    return {"name": name, "mimeType": "audio/wav", "buffer": data}


def test_all_of_several_files_are_transcribed(page: Page) -> None:
    audios = {f"speech {i}.wav": spoken(90 + i, voice="en_rms", digits=(4, 4)) for i in range(3)}
    page.goto("/")
    page.set_input_files("#file", [speech_file(*entry) for entry in audios.items()])
    expect(page.locator("#queue [data-state=done]")).to_have_count(3)
    for name, audio in audios.items():
        page.locator("#queue").get_by_role("button", name=name).first.click()
        assert lines(page) == audio.text
    expect(page.locator("#history .history-name").first).to_have_text("speech 2.wav")
    page.get_by_role("searchbox", name="Search").fill(audios["speech 1.wav"].text)
    page.wait_for_selector(f"#history[data-loaded='{audios['speech 1.wav'].text}']")
    expect(page.locator("#history .history-name", has_text="speech 1.wav")).to_have_count(1)
    page.get_by_role("searchbox", name="Search").fill("")
    look_at(page, "files")
    page.get_by_role("button", name="中文").click()
    look_at(page, "files-zh")


def test_a_dropped_file_joins_those_that_wait(page: Page) -> None:
    """None is ignored while another one runs, and each shows how far it is."""
    page.goto("/")
    page.evaluate(
        """() => {
            window.shown = [];
            const queue = document.querySelector("#queue");
            new MutationObserver(() => window.shown.push(queue.textContent))
                .observe(queue, {childList: true, characterData: true, subtree: true});
        }"""
    )
    # Dropped when the first one begins, at which this process might not be looking.
    data = list(encode(spoken(95, digits=(4, 4)).pcm, "wav", 16_000, 1))
    page.evaluate(
        """(bytes) => document.querySelector("#file").addEventListener("change", () => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], "late.wav", {type: "audio/wav"}));
            window.dispatchEvent(new DragEvent("drop", {dataTransfer: files, cancelable: true}));
        })""",
        data,
    )
    page.set_input_files("#file", [speech_file("long.wav", spoken(94, digits=(30, 30)))])
    expect(page.locator("#queue [data-state=done]")).to_have_count(2)
    shown = page.evaluate("window.shown")
    assert any("Waiting for its turn" in text for text in shown)
    assert any(re.search(r"\d+ % uploaded · \d:\d\d of \d:\d\d recognised", t) for t in shown)
    assert any(re.search(r"0:0[1-9] of", text) for text in shown)


def test_a_reload_in_mid_speech_loses_no_text(page: Page, said: Spoken) -> None:
    page.goto("/")
    start_speaking(page)
    page.wait_for_selector("#lines .line")
    page.wait_for_selector("#partial:not([hidden])")
    before = lines(page)
    page.reload()
    wait_for_state(page, "live")
    expect(page.locator("#warnings")).to_contain_text("Speech during the reload is missing.")
    expect(page.locator("#lines .line").first).to_contain_text(before)
    # The fake microphone starts over: all of it is heard now.
    page.wait_for_function(
        """said => [...document.querySelectorAll("#lines .word")]
            .map(word => word.textContent).join(" ").endsWith(said)""",
        arg=said.text.split(maxsplit=3)[-1],  # the second utterance: the first has the reload in it
    )
    page.get_by_role("button", name="Stop").click()
    wait_for_state(page, "done")
    text = lines(page)
    assert text.startswith(before)
    expect(page.locator("#history .history-text").first).to_have_text(text)
    page.reload()
    expect(page.locator("#queue li")).to_have_count(0)


def test_another_recording_keeps_the_one_before(page: Page) -> None:
    page.goto("/")
    for _ in range(2):
        start_speaking(page)
        page.wait_for_selector("#lines .line")
        page.get_by_role("button", name="Stop").click()
        wait_for_state(page, "done")
    rows = page.locator("#queue li")
    expect(rows).to_have_count(2)
    rows.first.locator(".queue-view").click()
    expect(rows.first.locator(".queue-view")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#lines .line").first).to_be_visible()


@pytest.mark.parametrize("at_once", [False, True])
def test_a_double_click_starts_one_recording(page: Page, at_once: bool) -> None:
    page.goto("/")
    record = page.get_by_role("button", name="Start the microphone")
    if at_once:  # Before the first click had an effect.
        record.evaluate("button => { button.click(); button.click(); }")
    else:
        record.dblclick()
    wait_for_state(page, "live")
    expect(page.locator("#queue li")).to_have_count(1)
    page.get_by_role("button", name="Stop").click()
    wait_for_state(page, "done")
    expect(record).to_be_visible()


def test_playback_follows_the_words(page: Page) -> None:
    audio = spoken(71, voice="en_rms", digits=(6, 6))
    page.goto("/")
    page.set_input_files("#file", [speech_file("speech.wav", audio)])
    wait_for_state(page, "done")
    expect(page.locator("[data-part=time]")).to_have_text(re.compile(r"^0:00 / 0:0[1-9]$"))
    word = page.locator("#lines .word").nth(4)
    word.click()
    expect(word).to_have_class("word now")
    assert page.locator("#player").get_attribute("class") == "player playing"
    expect(page.locator("#lines .word").nth(5)).to_have_class("word now")
    page.get_by_role("button", name="Play from 0:00").first.click()
    expect(page.locator("#lines .word").first).to_have_class("word now")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Speed 1×").click()
    expect(page.locator("[data-part=rate]")).to_have_text("1.25×")


def test_an_edited_text_is_exported_and_never_dropped_unasked(page: Page) -> None:
    page.goto("/")
    page.set_input_files("#file", [speech_file("speech.wav", spoken(72, digits=(4, 4)))])
    wait_for_state(page, "done")
    page.get_by_role("button", name="Edit", exact=True).click()
    field = page.get_by_role("textbox", name="Text at").first
    expect(field).to_be_focused()
    field.fill("the answer is <42> & more")
    look_at(page, "editing")
    page.get_by_role("button", name="Edit", exact=True).click()
    assert lines(page).startswith("the answer is <42> & more")
    expect(page.locator("#warnings")).to_contain_text("Edited: this browser keeps")
    plain, escaped = "<42> & more", "&lt;42&gt; &amp; more"
    for kind, text in {"text": plain, "srt": plain, "vtt": escaped, "json": plain}.items():
        with page.expect_download() as download:
            page.locator(f"[data-download={kind}]").click()
        content = Path(download.value.path()).read_text(encoding="utf-8")
        assert text in content
    page.get_by_role("button", name="Take speech.wav off").click()
    assert_accessible(page)
    page.get_by_role("alertdialog").get_by_role("button", name="Cancel").click()
    assert lines(page).startswith("the answer is")


def test_a_refusal_is_explained_and_retried(page: Page) -> None:
    refusal = {"code": "max_connections", "message": "all are taken", "retry_after_s": 3}
    answers = [json.dumps(refusal)]

    def admission(route: Route) -> None:
        if answers:
            route.fulfill(status=503, content_type="application/json", body=answers.pop())
        else:
            route.continue_()

    def socket(route: WebSocketRoute) -> None:
        if answers:
            route.close(code=1013)
        else:
            route.connect_to_server()

    page.route("**/api/v1/admission", admission)
    page.route_web_socket("**/ws/asr*", socket)
    page.goto("/")
    # Three seconds may be over before this process looks.
    page.evaluate(
        """() => {
            window.shown = [];
            new MutationObserver(() => {
                for (const place of ["[role=alert]", ".queue-facts"])
                    window.shown.push(document.querySelector(place)?.textContent);
            }).observe(document.body, {childList: true, characterData: true, subtree: true});
        }"""
    )
    start_speaking(page)
    wait_for_state(page, "live")
    shown = page.evaluate("window.shown")
    assert "All connections are in use. Trying again in 3 s." in shown
    assert "All connections are in use." in shown
    expect(page.locator(".queue-facts")).to_contain_text("Listening")
    expect(page.locator("#problem")).to_be_hidden()
    page.get_by_role("button", name="Stop").click()
    wait_for_state(page, "done")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})", "only on pages"),
        (
            "navigator.mediaDevices.getUserMedia = async () => "
            "{ throw new DOMException('', 'NotAllowedError') }",
            "microphone is blocked",
        ),
        (
            "navigator.mediaDevices.getUserMedia = async () => "
            "{ throw new DOMException('', 'NotFoundError') }",
            "No microphone was found",
        ),
    ],
    ids=["insecure", "denied", "missing"],
)
def test_a_missing_microphone_is_explained(page: Page, script: str, words: str) -> None:
    page.add_init_script(script)
    page.goto("/")
    start_speaking(page)
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.locator("#state")).to_have_text("Stopped")


@pytest.mark.parametrize("container", ["txt", "wav"])
def test_a_file_without_audio_is_explained(page: Page, container: str) -> None:
    header = encode(np.zeros(9, np.int16), "wav", 16_000, 1)[:44]
    content = header if container == "wav" else b"no sound in here"
    page.goto("/")
    page.set_input_files("#file", {"name": f"a.{container}", "mimeType": "", "buffer": content})
    expect(page.get_by_role("alert")).to_contain_text(re.compile("cannot be (read|decoded)"))
    expect(page.locator("#queue [data-state=failed]")).to_have_count(1)
    expect(page.get_by_role("button", name="Start the microphone")).to_be_enabled()


def test_chinese_is_remembered_and_set_as_the_page_language(page: Page) -> None:
    page.goto("/")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.goto("/dashboard")
    expect(page).to_have_title("运行状态")
    expect(page.get_by_role("heading", level=1)).to_have_text("运行状态")
    expect(page.get_by_role("button", name="中文")).to_have_attribute("aria-pressed", "true")


def test_both_languages_have_all_texts(page: Page) -> None:
    page.goto("/")
    missing = page.evaluate(
        """async () => {
            const { texts } = await import("/static/texts.js");
            const [en, zh] = [Object.keys(texts.en), Object.keys(texts["zh-CN"])];
            const used = [...document.querySelectorAll("[data-text], [data-label], [data-hint]")]
                .flatMap(({dataset: d}) => [d.text, d.label, d.hint].filter(Boolean));
            return [
                ...en.filter((key) => !zh.includes(key)),
                ...zh.filter((key) => !en.includes(key)),
                ...used.filter((key) => !en.includes(key)),
            ];
        }"""
    )
    assert missing == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", ["/", "/dashboard", "/docs"])
def test_pages_fit_the_screen_and_are_accessible(page: Page, path: str, width: str) -> None:
    page.set_viewport_size(size(width)["viewport"])
    page.goto(path)
    page.wait_for_load_state("networkidle")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        screenshot(page, f"{path.strip('/') or 'home'}-{width}-{scheme}")
        assert_fits(page)
        assert_accessible(page)


def test_the_api_page_shows_and_tries_every_operation_without_other_hosts(
    page: Page, stack: Stack
) -> None:
    page.goto("/docs")
    paths = stack.get("/openapi.json").body["paths"]
    operations = {f"{method.upper()} {path}" for path in paths for method in paths[path]}
    page.wait_for_selector("#operations .opblock")
    shown = {
        " ".join(
            block.locator(place).inner_text().replace("\u200b", "")
            for place in (".opblock-summary-method", ".opblock-summary-path")
        )
        for block in page.locator("#operations .opblock").all()
    }
    assert shown == operations
    history = page.locator("#operations .opblock").filter(has_text="/api/v1/history")
    history.locator(".opblock-summary-control").click()
    history.get_by_role("button", name="Execute").click()
    expect(history.locator(".live-responses-table .response-col_status").last).to_contain_text(
        "200"
    )
    expect(page.get_by_role("button", name="Authorize").first).to_be_visible()


def test_the_api_page_shows_the_messages_of_the_web_socket(page: Page) -> None:
    page.goto("/docs")
    start = page.locator("#from-client details").first
    start.locator("summary").click()
    expect(start).to_contain_text("session_id")
    expect(page.locator("#to-client")).to_contain_text("chunk_result")
    resumed = page.locator("#to-client summary", has_text="resumed")
    expect(resumed.locator("code")).to_have_text(["resumed", "next_segment_index"])
    expect(resumed).not_to_contain_text("`")
    page.get_by_role("button", name="中文").click()
    expect(page.locator(".board-head h1")).to_have_text("接口")


def test_the_accessibility_check_sees_a_violation(page: Page) -> None:
    page.goto("/dashboard")
    page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    assert [violation["id"] for violation in violations(page)] == ["button-name"]


def test_the_page_works_with_the_keyboard_alone(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Start the microphone")).to_be_focused()
    page.keyboard.press("Enter")
    wait_for_state(page, "live")
    page.keyboard.press("Enter")
    wait_for_state(page, "done")
