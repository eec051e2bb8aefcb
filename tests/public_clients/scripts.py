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
from typing import Any

from gateway.session.transcript import join_texts
from tests.public_clients.said import CHINESE, ENGLISH, Outcome, as_mp3, text_of

FUNASR_CLIENT = "runtime/python/websocket/funasr_wss_client.py"
FUNASR_REALTIME = "examples/industrial_data_pretraining/fun_asr_nano"
FUNASR_HTTP = "runtime/python/http/client.py"
FUNASR_SMOKE_TEST = "examples/openai_api/smoke_test.py"
VOSK_CLIENTS = ("test.py", "test_words.py", "test_alternatives.py", "test_ffmpeg.py")
VOSK_ADDRESS = "ws://localhost:2700"
"""In the source of each of them."""
RUN_S_MAX = 90.0
IN_DIGITS = {CHINESE: "25180 369", ENGLISH: "925 401 seven eight"}
"""The texts with inverse text normalisation, which FunASR's client asks for by default: it leaves
two digits as words."""
_SENTENCE = re.compile(r"^  \033\[90m\[.*?s\]\033\[0m (.*)$", re.MULTILINE)
_SHOWN = re.compile(r"^\r?pid\d+_\d+: (?:demo: )?(.*?)(?: timestamp: .*)?$", re.MULTILINE)


def funasr(script: Path, commit: str, port: int) -> Iterator[Outcome]:
    """FunASR's client in each of its modes, and with a file that the server must decode."""
    for mode, sample in itertools.product(("offline", "online", "2pass"), (CHINESE, ENGLISH)):
        shown = _funasr_text(script, port, sample, mode=mode, use_itn=0)
        how = f"`--mode {mode} --use_itn 0`, {sample.name}"
        yield Outcome(script.name, commit, how, text_of(sample), shown)
    file = as_mp3(ENGLISH, script.parent)
    shown = _funasr_text(script, port, file, mode="offline", use_itn=0)
    how = f"`--mode offline --use_itn 0`, {file.name}"
    yield Outcome(script.name, commit, how, text_of(ENGLISH), shown)
    for sample, written in IN_DIGITS.items():
        shown = _funasr_text(script, port, sample, mode="offline")
        yield Outcome(script.name, commit, f"`--mode offline`, {sample.name}", written, shown)


def _funasr_text(script: Path, port: int, sample: Path, **more: Any) -> str:
    """The last line that it prints holds the whole text."""
    options = {"host": "127.0.0.1", "port": port, "ssl": 0, "audio_in": sample, **more}
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return last_shown(_output(script, *given))


def last_shown(output: str) -> str:
    lines = _SHOWN.findall(output)
    return str(lines[-1]) if lines else ""


def funasr_realtime(folder: Path, commit: str, port: int) -> Iterator[Outcome]:
    """FunASR's clients of its newer protocol: one shows sentences, one checks the protocol."""
    server = ("--server", f"ws://127.0.0.1:{port}")
    for sample in (CHINESE, ENGLISH):
        output = _output(folder / "client_python.py", *server, "--file", str(sample))
        yield Outcome("client_python.py", commit, sample.name, text_of(sample), sentences(output))
    output = _output(folder / "client_test.py", *server, "--file", str(ENGLISH))
    verdict = output.splitlines()[-2:-1]
    passed = "RESULTS: 3 passed, 0 failed"
    yield Outcome("client_test.py", commit, "its three tests", passed, "".join(verdict))


def sentences(output: str) -> str:
    """The sentences on the last screen that ``client_python.py`` draws."""
    *_, screen = output.split("\033[2J")
    return join_texts(_SENTENCE.findall(screen))


def funasr_http(script: Path, commit: str, port: int) -> Iterator[Outcome]:
    """FunASR's client of its HTTP server. Its last line is the answer."""
    for sample in (CHINESE, ENGLISH):
        output = _output(script, "--port", str(port), "--audio_path", str(sample))
        yield Outcome(f"http/{script.name}", commit, sample.name, text_of(sample), answer(output))


def answer(output: str) -> str:
    *_, last = output.strip().splitlines() or [""]
    return str(json.loads(last)["text"]) if last.startswith("{") else ""


def funasr_smoke_test(script: Path, commit: str, port: int) -> Iterator[Outcome]:
    """FunASR's test of its OpenAI server: health, models, and a file."""
    server = ("--base-url", f"http://127.0.0.1:{port}", "--model", "demo")
    for sample in (CHINESE, ENGLISH):
        shown = transcription(_output(script, str(sample), *server))
        yield Outcome(script.name, commit, sample.name, text_of(sample), shown)


def transcription(output: str) -> str:
    """The text in the last JSON object that ``smoke_test.py`` prints."""
    *_, last = output.partition("== transcription ==")
    return str(json.loads(last)["text"]) if last else ""


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
    """Return its standard output, or nothing if it hangs. It inherits our standard error."""
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
