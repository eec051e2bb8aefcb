"""Clients that are Python scripts, run as their users run them; their output is read."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.session.transcript import join_texts
from tests.public_clients.said import CHINESE, ENGLISH, Outcome, as_mp3, text_of

FUNASR_CLIENT = "runtime/python/websocket/funasr_wss_client.py"
VOSK_CLIENTS = ("test.py", "test_words.py", "test_alternatives.py", "test_ffmpeg.py")
VOSK_ADDRESS = "ws://localhost:2700"
"""In the source of each of them."""
RUN_S_MAX = 90.0
_SHOWN = re.compile(r"^\r?pid\d+_\d+: (?:demo: )?(.*?)(?: timestamp: .*)?$", re.MULTILINE)


def funasr(script: Path, commit: str, port: int) -> Iterator[Outcome]:
    """FunASR's client in each of its modes, and with a file that the server must decode."""
    for mode, sample in itertools.product(("offline", "online", "2pass"), (CHINESE, ENGLISH)):
        shown = _funasr_text(script, port, mode, sample)
        how = f"`--mode {mode}`, {sample.name}"
        yield Outcome(script.name, commit, how, text_of(sample), shown)
    file = as_mp3(ENGLISH, script.parent)
    shown = _funasr_text(script, port, "offline", file)
    how = f"`--mode offline`, {file.name}"
    yield Outcome(script.name, commit, how, text_of(ENGLISH), shown)


def _funasr_text(script: Path, port: int, mode: str, sample: Path) -> str:
    """The last line that it prints holds the whole text."""
    options = {"host": "127.0.0.1", "port": port, "ssl": 0, "mode": mode, "audio_in": sample}
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return last_shown(_output(script, *given))


def last_shown(output: str) -> str:
    lines = _SHOWN.findall(output)
    return str(lines[-1]) if lines else ""


def vosk(folder: Path, commit: str, port: int) -> Iterator[Outcome]:
    """vosk-server's clients, each of which prints every reply."""
    for name in VOSK_CLIENTS:
        if name == "test_ffmpeg.py" and not shutil.which("ffmpeg"):
            continue
        script = folder / name
        source = script.read_text(encoding="utf-8")
        assert VOSK_ADDRESS in source
        here = source.replace(VOSK_ADDRESS, f"ws://127.0.0.1:{port}/vosk")
        script.write_text(here, encoding="utf-8")
        for sample in (CHINESE, ENGLISH):
            replies = [json.loads(line) for line in _output(script, str(sample)).splitlines()]
            shown = join_texts(filter(None, map(vosk_text, replies)))
            yield Outcome(f"websocket/{name}", commit, sample.name, text_of(sample), shown)


def vosk_text(reply: dict[str, object]) -> str:
    alternatives = reply.get("alternatives")
    best = alternatives[0] if isinstance(alternatives, list) else reply
    return str(best.get("text", ""))


def _output(script: Path, *arguments: str) -> str:
    """Its output; empty if it hangs. Its errors go to standard error."""
    try:
        done = subprocess.run(
            [sys.executable, script, *arguments],
            cwd=script.parent,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TERM": "dumb"},
            stdout=subprocess.PIPE,
            text=True,
            timeout=RUN_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout
