"""The examples, unchanged, against a running system."""

from __future__ import annotations

import functools
import http.server
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright._impl._driver import compute_driver_executable
from playwright.sync_api import expect

from tests.integration.browser import running_browser
from tests.integration.speech import PARTIALS_TRIES
from tools.lab.harness.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SAMPLE = ROOT / "tools" / "samples" / "digits_en.wav"
TEXT = SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").strip()
TIMEOUT_S = 60


def completed(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def run(*command: str) -> str:
    done = completed(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lines_with_partials(*command: str) -> list[str]:
    """The lines of the first of some runs that shows a partial result."""
    for _ in range(PARTIALS_TRIES):
        lines = run(*command).splitlines()
        if any(line.startswith("…") for line in lines):
            return lines
    raise AssertionError("no partial result is shown")


def refused(*command: str) -> str:
    """The one line with which an example fails."""
    done = completed(*command)
    assert done.returncode != 0, done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


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
    command = (sys.executable, str(EXAMPLES / "stream.py"), str(SAMPLE), stack.url())
    assert lines_with_partials(*command)[-2:] == [TEXT, "stored"]


def test_node(stack: Stack) -> None:
    command = (node(), str(EXAMPLES / "stream.mjs"), str(SAMPLE), stack.url())
    assert lines_with_partials(*command)[-1] == TEXT


def test_files_and_history(stack: Stack) -> None:
    shown = run("sh", str(EXAMPLES / "files.sh"), str(SAMPLE), stack.http_url())
    assert shown.splitlines()[0] == TEXT
    assert "-->" in shown and '"session_id"' in shown
    assert shown.splitlines()[-1] == "deleted: 200"


NOT_LINEAR = bytes.fromhex("52494646 25000000 57415645 666d7420 10000000") + struct.pack(
    "<HHIIHH4sI", 7, 1, 8000, 8000, 1, 8, b"data", 1
)
"""The header of a WAV file of µ-law."""


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (NOT_LINEAR + b"\xff", "ffmpeg"),
        (NOT_LINEAR[:20], "copy it again"),
        (SAMPLE.read_bytes()[:44], "copy it again"),
        (b"", "copy it again"),
        (b"This is no audio, and longer than a header of a WAV file is.", "ffmpeg"),
        (None, "No such file"),
    ],
    ids=["mu-law", "no format", "no samples", "empty", "text", "missing"],
)
def test_the_stream_says_which_file_it_takes(
    tmp_path: Path, content: bytes | None, remedy: str
) -> None:
    path = tmp_path / "audio.wav"
    if content is not None:
        path.write_bytes(content)
    said = refused(sys.executable, str(EXAMPLES / "stream.py"), str(path))
    assert str(path) in said and remedy in said


def programs() -> dict[str, tuple[str, ...]]:
    return {
        "transcribe.py": (sys.executable, "ws://127.0.0.1:1/ws/asr"),
        "stream.py": (sys.executable, "ws://127.0.0.1:1/ws/asr"),
        "stream.mjs": (node(), "ws://127.0.0.1:1/ws/asr"),
        "files.sh": ("sh", "http://127.0.0.1:1"),
    }


@pytest.mark.parametrize("name", programs())
def test_an_example_without_its_file_or_its_server_fails_in_one_line(name: str) -> None:
    program, nowhere = programs()[name]
    example = str(EXAMPLES / name)
    assert f"{name} FILE" in completed(program, example).stderr
    refused(program, example, "missing.wav", nowhere)
    assert "127.0.0.1" in refused(program, example, str(SAMPLE), nowhere)
    refused(program, example, str(SAMPLE), "no://address")


@pytest.mark.parametrize("name", sorted(programs().keys() - {"stream.py"}))
def test_an_example_shows_why_the_server_refuses(name: str, stack: Stack, tmp_path: Path) -> None:
    path = tmp_path / "audio.wav"
    path.write_bytes(SAMPLE.read_bytes()[:44])
    url = stack.http_url() if name == "files.sh" else stack.url()
    program = programs()[name][0]
    done = completed(program, str(EXAMPLES / name), str(path), url)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "the WAV file has no samples" in done.stdout + done.stderr


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
            expect(page.locator("#final")).to_have_text(TEXT)
            assert page.locator("#lines li").count() >= 1
            page.set_input_files(
                "#file", {"name": "a.wav", "mimeType": "audio/wav", "buffer": b"no audio" * 99}
            )
            expect(page.locator("#final")).to_contain_text("bad_audio: this is text")
            assert all(url.startswith((origin, server)) for url in asked)
            for wrong, said in (("ws://127.0.0.1:1", "No result"), ("foo://x", "?server=ws://")):
                page.goto(f"{origin}/page.html?server={wrong}")
                page.set_input_files("#file", SAMPLE)
                expect(page.locator("#final")).to_contain_text(said)
    del stack.processes["gateway7"]
