"""A real Chromium with a microphone that plays a file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.integration.speech import Spoken
from tools.lab.harness import chromium

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
"""Kept after the run for inspection."""
WIDTHS = {"narrow": (390, 844), "medium": (768, 1024), "wide": (1280, 800)}
WAIT_MS = 30_000
"""For steps that take seconds on an idle machine."""
expect.set_options(timeout=WAIT_MS)


def executable() -> str:
    """The path of Chromium. Without it the test is skipped; in continuous integration it fails."""
    if found := chromium.path():
        return found
    reason = "no Chromium on PATH (Debian: apt-get install chromium)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def write_recording(path: Path, audio: Spoken) -> Path:
    """Write ``audio``, followed by silence, as a file for the fake microphone."""
    return chromium.write_recording(path, audio.pcm.tobytes())


def running_browser(recording: Path | None = None) -> contextlib.AbstractContextManager[Browser]:
    """See ``chromium.running``."""
    return chromium.running(executable(), recording)


@contextlib.contextmanager
def visiting(browser: Browser, base_url: str) -> Iterator[Page]:
    """A new visitor. A script error, a violation of the content security policy or a request to
    another host fails the test."""
    context = browser.new_context(base_url=base_url, locale="en-US", **size("wide"))
    context.set_default_timeout(WAIT_MS)
    complaints: list[str] = []
    visitor = context.new_page()
    visitor.on("pageerror", lambda error: complaints.append(str(error)))
    visitor.on(
        "console",
        lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None,
    )
    visitor.on(
        "request",
        lambda request: None if _is_ours(request.url) else complaints.append(request.url),
    )
    yield visitor
    context.close()
    # The test itself judges the effects of a lost or refusing server.
    of_the_server = ("Failed to load resource", "WebSocket connection to")
    reported = [text for text in complaints if not text.startswith(of_the_server)]
    assert not reported, reported


def _is_ours(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "blob:http://127.0.0.1:"))


def size(name: str) -> dict[str, Any]:
    width, height = WIDTHS[name]
    return {"viewport": {"width": width, "height": height}}


def violations(page: Page) -> list[dict[str, Any]]:
    # Swagger UI is not ours.
    found = Axe().run(page, {"exclude": [["#operations"]]}).response["violations"]
    return [violation for violation in found if violation["impact"] in ("serious", "critical")]


def assert_accessible(page: Page) -> None:
    found = violations(page)
    assert not found, json.dumps(found, indent=1)[:3_000]


def assert_fits(page: Page) -> None:
    """Neither the page nor a part of it scrolls sideways."""
    sideways = page.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll("body *")]
            .filter((part) => part.scrollWidth > part.clientWidth)
            .filter((part) => part === document.documentElement
                || ["auto", "scroll"].includes(getComputedStyle(part).overflowX))
            .filter((part) => !part.closest("#operations"))  // Swagger UI is not ours.
            .map((part) => part.outerHTML.slice(0, 200))"""
    )
    assert not sideways, sideways


def look_at(page: Page, name: str) -> None:
    """Take screenshots in the sizes of a phone, a tablet and a desktop, and check each."""
    for width in WIDTHS:
        page.set_viewport_size(size(width)["viewport"])
        screenshot(page, f"{name}-{width}")
        assert_fits(page)
        assert_accessible(page)


def screenshot(page: Page, name: str) -> None:
    """Save a screenshot of the full height."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
