"""A real Chromium, headless, with a microphone that plays a file."""

from __future__ import annotations

import contextlib
import shutil
import wave
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SILENCE_S = 60
"""After the speech: at the end of its file the fake microphone starts over."""


def path() -> str | None:
    """The path of Chromium; None if it is not installed."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def write_recording(target: Path, pcm: bytes, *, lead_ms: int = 0) -> Path:
    """Write ``pcm`` between ``lead_ms`` of silence and a long one, as a file for the fake
    microphone. A page hears the file from where it is when the page is ready."""
    lead = bytes(lead_ms * SAMPLE_RATE_HZ // 1000 * BYTES_PER_SAMPLE)
    with wave.open(str(target), "wb") as file:
        file.setparams((1, BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes(lead + pcm + bytes(_SILENCE_S * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE))
    return target


@contextlib.contextmanager
def running(executable: str, recording: Path | None = None) -> Iterator[Browser]:
    """Chromium, whose microphone plays ``recording`` from the start each time a page opens it,
    without asking for permission. The file may be replaced while no page has it open."""
    heard = [f"--use-file-for-fake-audio-capture={recording}"] if recording is not None else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
                *heard,
            ],
        )
        yield browser
        browser.close()
