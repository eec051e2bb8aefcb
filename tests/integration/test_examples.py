"""The examples, unchanged, against a running system."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright._impl._driver import compute_driver_executable

from tests.integration.browser import running_browser
from tools.lab.harness.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SAMPLE = ROOT / "tools" / "samples" / "digits_en.wav"
TEXT = SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").strip()
TIMEOUT_S = 60


def run(*command: str) -> str:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def node() -> str:
    """The Node that Playwright ships."""
    return str(compute_driver_executable()[0])


def test_all_examples_are_tested_and_listed() -> None:
    files = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    assert files == {"transcribe.py", "stream.py", "stream.mjs", "page.html", "files.sh"}
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{name}]({name})" in readme for name in files)


def test_transcribe(stack: Stack) -> None:
    example = EXAMPLES / "transcribe.py"
    lines = run(sys.executable, str(example), str(SAMPLE), stack.url()).splitlines()
    assert " ".join(line.split(" ", 2)[2] for line in lines) == TEXT


def test_stream(stack: Stack) -> None:
    lines = run(sys.executable, str(EXAMPLES / "stream.py"), str(SAMPLE), stack.url()).splitlines()
    assert lines[-2:] == [TEXT, "stored"]
    assert any(line.startswith("…") for line in lines)


def test_node(stack: Stack) -> None:
    lines = run(node(), str(EXAMPLES / "stream.mjs"), str(SAMPLE), stack.url()).splitlines()
    assert lines[-1] == TEXT
    assert any(line.startswith("…") for line in lines)


def test_files_and_history(stack: Stack) -> None:
    shown = run("sh", str(EXAMPLES / "files.sh"), str(SAMPLE), stack.http_url())
    assert shown.splitlines()[0] == TEXT
    assert "-->" in shown and '"session_id"' in shown
    assert shown.splitlines()[-1] == "deleted: 200"


@pytest.fixture
def origin() -> Iterator[str]:
    """Another web server, with the examples."""
    handler = functools.partial(_Quiet, directory=str(EXAMPLES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a test's output is for failures."""


def test_browser(stack: Stack, origin: str) -> None:
    with stack.start("gateway7", ALLOWED_ORIGINS=origin):
        stack.wait_ready("gateway7")
        server = stack.http_url("gateway7").replace("http", "ws")
        with running_browser() as browser:
            page = browser.new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"{origin}/page.html?server={quote(server)}")
            page.set_input_files("#file", SAMPLE)
            page.wait_for_function(
                "text => document.getElementById('final').textContent === text",
                arg=TEXT,
                timeout=TIMEOUT_S * 1000,
            )
            assert page.locator("#lines li").count() >= 1
            assert all(url.startswith((origin, server)) for url in asked)
    del stack.processes["gateway7"]
