"""The two pages in a real browser, against a running system. Screenshots stay in
build/screenshots."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from tests.gateway.encoded_audio import encode
from tests.integration.browser import (
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
    return " ".join(page.locator("#lines .line > span").all_text_contents())


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
    newest.get_by_role("button", name="View the session").click()
    expect(page.locator("#viewer-lines .line > span")).to_have_text(
        page.locator("#lines .line > span").all_text_contents()
    )
    assert_accessible(page)
    page.keyboard.press("Escape")
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
    wait_for_state(page, "live")
    wait_for_all_words(page, said)
    page.get_by_role("button", name="Stop").click()
    wait_for_state(page, "done")
    assert lines(page) == said.text
    screenshot(page, "resumed")


@pytest.mark.parametrize("container", ["wav", "webm", "mp3"])
def test_a_file_and_its_downloads(page: Page, container: str) -> None:
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
    with page.expect_download() as srt:
        page.get_by_role("button", name="Download as SRT").first.click()
    text = Path(srt.value.path()).read_text(encoding="utf-8")
    assert text.startswith("1\n00:00:00,") and " --> 00:00:" in text
    with page.expect_download() as plain:
        page.get_by_role("button", name="Download as text").first.click()
    assert Path(plain.value.path()).read_text(encoding="utf-8").split() == audio.text.split()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator("#said")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()").split() == audio.text.split()


def test_a_refusal_is_explained_and_retried(page: Page) -> None:
    refusal = {"code": "max_connections", "message": "all are taken", "retry_after_s": 1}
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
    start_speaking(page)
    expect(page.get_by_role("alert")).to_have_text(
        "All connections are in use. Trying again in 1 s."
    )
    wait_for_state(page, "live")
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


def test_a_file_without_audio_is_explained(page: Page) -> None:
    page.goto("/")
    page.set_input_files(
        "#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no sound in here"}
    )
    expect(page.get_by_role("alert")).to_contain_text("This file cannot be read.")
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


def test_both_languages_say_everything(page: Page) -> None:
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


def test_the_api_page_shows_every_operation_without_other_hosts(page: Page, stack: Stack) -> None:
    page.goto("/docs")
    paths = stack.get("/openapi.json").body["paths"]
    operations = {f"{method.upper()}{path}" for path in paths for method in paths[path]}
    page.wait_for_selector("#operations section")
    assert set(page.locator("#operations h2").all_text_contents()) == operations
    history = page.locator("#operations section").filter(has_text="/api/v1/history")
    expect(history).to_contain_text("limit")
    history.locator("summary").first.click()
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("接口")


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
