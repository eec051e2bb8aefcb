"""Clients that are Python scripts, run as their users run them; their output is read."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gateway.session.transcript import join_texts
from tests.public_clients.clones import replace
from tests.public_clients.said import CHINESE, ENGLISH, Outcome, as_mp3, text_of

FUNASR_CLIENT = "runtime/python/websocket/funasr_wss_client.py"
FUNASR_REALTIME = "examples/industrial_data_pretraining/fun_asr_nano"
FUNASR_LIBRARY = "runtime/python/websocket/funasr_client_api.py"
FUNASR_LIBRARY_CALL = 'host="127.0.0.1", port="10095", is_ssl=True, mode="2pass"'
"""In the example at its end."""
FUNASR_HTTP = "runtime/python/http/client.py"
FUNASR_SMOKE_TEST = "examples/openai_api/smoke_test.py"
FUNASR_MODES = ("offline", "online", "2pass")
VOSK_CLIENTS = ("test.py", "test_words.py", "test_alternatives.py", "test_ffmpeg.py")
VOSK_ADDRESS = "ws://localhost:2700"
"""In the source of each of them."""
RUN_S_MAX = 90.0
IN_DIGITS = {CHINESE: "25180 369", ENGLISH: "925 401 seven eight"}
"""The texts with inverse text normalisation, which FunASR's client asks for by default: it leaves
two digits as words."""
_SENTENCE = re.compile(r"^  \033\[90m\[.*?s\]\033\[0m (.*)$", re.MULTILINE)
_SUBTITLE = re.compile(r" --> .*\n(.+)")
_RETURNED = re.compile(r"\{'mode': .*\}")
_SHOWN = re.compile(r"^\r?pid\d+_\d+: (?:demo: )?(.*?)(?: timestamp: .*)?$", re.MULTILINE)


def funasr(script: Path, commit: str, port: int) -> Iterator[Outcome]:
    """FunASR's client in each of its modes, and with a file that the server must decode."""
    for mode, sample in itertools.product(FUNASR_MODES, (CHINESE, ENGLISH)):
        shown = _whole_text(script, port, sample, mode=mode, use_itn=0)
        how = f"`--mode {mode} --use_itn 0`, {sample.name}"
        yield Outcome(script.name, commit, how, text_of(sample), shown)
    file = as_mp3(ENGLISH, script.parent)
    shown = _whole_text(script, port, file, mode="offline", use_itn=0)
    how = f"`--mode offline --use_itn 0`, {file.name}"
    yield Outcome(script.name, commit, how, text_of(ENGLISH), shown)
    for sample, written in IN_DIGITS.items():
        shown = _whole_text(script, port, sample, mode="offline")
        yield Outcome(script.name, commit, f"`--mode offline`, {sample.name}", written, shown)


def _whole_text(script: Path, port: int, sample: Path, **more: Any) -> str:
    """The last line that it prints holds the whole text."""
    options = {"host": "127.0.0.1", "port": port, "ssl": 0, "audio_in": sample, **more}
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return last_shown(_output(script, *given))


def last_shown(output: str) -> str:
    lines = _SHOWN.findall(output)
    return str(lines[-1]) if lines else ""


def funasr_library(script: Path, commit: str, port: int, python: str) -> Iterator[Outcome]:
    """FunASR's library, by the example at its end."""
    source = script.read_text(encoding="utf-8")
    assert FUNASR_LIBRARY_CALL in source
    for mode, sample in itertools.product(FUNASR_MODES, (CHINESE, ENGLISH)):
        call = f'host="127.0.0.1", port="{port}", is_ssl=False, mode="{mode}"'
        here = source.replace(FUNASR_LIBRARY_CALL, call)
        here = re.sub('wav_path = ".*"', f'wav_path = "{sample}"', here)
        script.write_text(here, encoding="utf-8")
        shown = funasr_text(returned(_output(script, python=python)), mode)
        yield Outcome(script.name, commit, f"{mode}, {sample.name}", text_of(sample), shown)


def returned(output: str) -> list[dict[str, Any]]:
    """The replies that the example of ``funasr_client_api.py`` prints. Its other thread may print
    between the parts of such a line."""
    return [ast.literal_eval(reply) for reply in _RETURNED.findall(output)]


def funasr_text(replies: Sequence[dict[str, Any]], mode: str) -> str:
    """The text that a client puts together, as FunASR's protocol says for ``mode``."""
    final = "2pass-offline" if mode == "2pass" else mode
    return "".join(reply["text"] for reply in replies if reply.get("mode") == final)


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
        replace(script, VOSK_ADDRESS, f"ws://127.0.0.1:{port}/vosk")
        for sample in (CHINESE, ENGLISH):
            replies = [json.loads(line) for line in _output(script, str(sample)).splitlines()]
            shown = join_texts(filter(None, map(vosk_text, replies)))
            yield Outcome(f"websocket/{name}", commit, sample.name, text_of(sample), shown)


def vosk_srt(script: Path, commit: str, port: int, python: str) -> Iterator[Outcome]:
    """vosk-server's client that prints subtitles."""
    replace(script, VOSK_ADDRESS, f"ws://127.0.0.1:{port}/vosk")
    for sample in (CHINESE, ENGLISH):
        shown = subtitles(_output(script, str(sample), python=python))
        yield Outcome(f"websocket/{script.name}", commit, sample.name, text_of(sample), shown)


def subtitles(output: str) -> str:
    return join_texts(_SUBTITLE.findall(output))


def vosk_text(reply: dict[str, object]) -> str:
    alternatives = reply.get("alternatives")
    best = alternatives[0] if isinstance(alternatives, list) else reply
    return str(best.get("text", ""))


def _output(script: Path, *arguments: str, python: str = sys.executable) -> str:
    """Return its standard output, or nothing if it hangs. It inherits our standard error."""
    try:
        done = subprocess.run(
            [python, script, *arguments],
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
