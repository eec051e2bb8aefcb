"""A real Chromium whose microphone hears a file."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from playwright.sync_api import Browser, Page, sync_playwright

from tests.integration.speech import Spoken

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
"""Kept after the run, to be looked at."""
WIDTHS = {"narrow": (390, 844), "wide": (1280, 800)}
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SILENCE_S = 60
"""After the speech; the fake microphone begins its file anew at the end."""


def chromium() -> str:
    """Where Chromium is. Without one the test is skipped, but never in continuous integration."""
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    reason = "no Chromium on PATH (Debian: apt-get install chromium)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def write_recording(path: Path, audio: Spoken) -> Path:
    """``audio`` as a file for the fake microphone, silence after it."""
    with sf.SoundFile(path, "w", samplerate=16_000, channels=1, subtype="PCM_16") as file:
        file.write(audio.pcm)
        file.write(np.zeros(_SILENCE_S * 16_000, np.int16))
    return path


@contextlib.contextmanager
def running_browser(recording: Path | None = None) -> Iterator[Browser]:
    """Headless Chromium; its microphone plays ``recording`` from the start each time a page opens
    it, and nobody is asked for permission."""
    heard = [f"--use-file-for-fake-audio-capture={recording}"] if recording is not None else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(),
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


def screenshot(page: Page, name: str) -> None:
    """Keep what ``page`` looks like, in full height."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
