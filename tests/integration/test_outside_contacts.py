"""No process contacts a host that no setting names: watched in a network of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile

import pytest

from gateway.web.pages import HEADERS, STATIC_DIR
from tests.integration.network_watch import REPORT
from tools.lab.harness.process import ROOT, inherited

WATCHED = ("unshare", "--net", sys.executable, "-m", "tests.integration.network_watch")
TOOLS = (
    *("tools.cli.models", "tools.cli.keys", "tools.cli.auth_tokens", "tools.training.__main__"),
    *("tools.lab.bench.__main__", "tools.lab.chaos.__main__", "tools.lab.loadtest.__main__"),
    *("tools.lab.fuzz.__main__", "tools.lab.accuracy", "tools.ops.scrape_targets"),
)
TIMEOUT_S = 240


def possible() -> bool:
    """Whether this user may make network namespaces and add routes in them."""
    try:
        script = "import tests.integration.network_watch as w; raise SystemExit(w.main(['true']))"
        command = ["unshare", "--net", sys.executable, "-c", script]
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not possible(), reason="needs root and network namespaces")


def contacts(*command: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [*WATCHED, *command],
        cwd=ROOT,
        env={**inherited(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3_000:]
    found: list[str] = json.loads(done.stdout.rpartition(REPORT)[2])
    return found


def test_the_watch_sees_names_and_addresses() -> None:
    program = (
        "import socket\n"
        "for host, port in ('192.0.2.7', 443), ('2001:db8::7', 80), ('name.example', 1):\n"
        "    try: socket.create_connection((host, port), 1)\n"
        "    except OSError: pass"
    )
    found = contacts(sys.executable, "-c", program, RES_OPTIONS="timeout:1 attempts:1")
    assert {"192.0.2.7:443", "2001:db8::7:80", "name.example"} <= set(found)


def test_a_whole_system_contacts_nobody() -> None:
    """``asr serve`` starts every kind of process, and transcribes in its self-check; then a file,
    which a decoder process decodes, and the pages and REST."""
    with tempfile.TemporaryDirectory(prefix="asr-out-") as directory:
        script = (sys.executable, "-m", "tests.integration.serve_once")
        assert contacts(*script, DATA_DIR=f"{directory}/data") == []


def test_tools_contact_nobody() -> None:
    """The libraries report when they are imported."""
    modules = [f"import {name}" for name in TOOLS]
    assert contacts(sys.executable, "-c", "\n".join(modules)) == []


def test_pages_contact_nobody_else() -> None:
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'self';")
    for path in STATIC_DIR.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert not re.search(r"""(src|href|import|from|url\()\s*[=(]?\s*['"]?https?://""", text)
