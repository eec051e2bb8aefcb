"""FunASR's html5 page in a real browser, with a file and with a fake microphone."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import soundfile as sf
from playwright.sync_api import Page

from tests.integration.browser import running_browser, write_recording
from tests.integration.speech import Spoken
from tests.public_clients.said import ENGLISH, Outcome, as_mp3, text_of

PAGE = "runtime/html5/static"
WAIT_S = 40
SPEECH_S = 9.0
"""The recording, and the silence that ends its last utterance."""
_TIMES = re.compile(r"[\d.]+:")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Only outcomes are printed."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on a web server of its own; return its origin."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def in_browser(address: str, commit: str, port: int, folder: Path) -> Iterator[Outcome]:
    said = text_of(ENGLISH)
    pcm, _ = sf.read(ENGLISH, dtype="int16")
    recording = write_recording(folder / "microphone.wav", Spoken(pcm, said))
    with running_browser(recording) as browser:

        def opened() -> Page:
            page = browser.new_page()
            page.set_default_timeout(WAIT_S * 1000)
            page.goto(f"{address}/index.html")
            page.fill("#wssip", f"ws://127.0.0.1:{port}/")
            return page

        for file in (ENGLISH, as_mp3(ENGLISH, folder)):
            shown = _file(opened(), file)
            yield Outcome("html5 page", commit, f"file, {file.name}", said, shown)
        for mode in ("2pass", "online", "offline"):
            shown = _microphone(opened(), mode)
            yield Outcome("html5 page", commit, f"microphone, {mode}", said, shown)


def without_times(shown: str) -> str:
    """The text without the time in seconds that the page writes before a word."""
    return _TIMES.sub("", shown)


def _file(page: Page, file: Path) -> str:
    page.check("input[name=recoder_mode][value=file]")
    with page.expect_file_chooser() as chooser:
        page.click("#upfile")
    chooser.value.set_files(file)
    page.wait_for_function("document.querySelector('#info_div').textContent.includes('进行识别')")
    page.click("#btnConnect")
    page.wait_for_function("document.querySelector('#audio_record').src")
    return _closed(page)


def _microphone(page: Page, mode: str) -> str:
    page.check(f"input[name=asr_mode][value='{mode}']")
    page.click("#btnConnect")
    page.wait_for_function("!document.querySelector('#btnStart').disabled")
    page.click("#btnStart")
    page.wait_for_timeout(SPEECH_S * 1000)
    page.click("#btnStop")
    page.wait_for_function("!document.querySelector('#btnConnect').disabled")
    return _closed(page)


def _closed(page: Page) -> str:
    shown = without_times(page.input_value("#varArea"))
    page.close()
    return shown
