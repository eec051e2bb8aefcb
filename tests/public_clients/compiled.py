"""vosk-server's clients in Go, C#, Java and PHP, with the libraries that they use: in Go those of
Debian (golang-github-gorilla-websocket-dev, golang-github-sirupsen-logrus-dev), in C# Mono's
(mono-mcs, libmono-system4.0-cil), in Java and PHP clones of the libraries, of the versions that the
clients ask for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.session.transcript import join_texts
from tests.public_clients.said import CHINESE, ENGLISH, Outcome, same, text_of
from tests.public_clients.scripts import vosk_text

NV_WEBSOCKET_TAG = "nv-websocket-client-2.9"
PHP_WEBSOCKET_TAG = "1.4.3"
GO_LIBRARIES = Path("/usr/share/gocode")
PHP_LOG = Path("/usr/share/php/Psr/Log/autoload.php")
"""Of Debian's php-psr-log, which the library in PHP needs."""
RUN_S_MAX = 60.0
_LOGGED = re.compile(r'level=info msg="?(.*?)"?$', re.MULTILINE)


def go(folder: Path, commit: str, port: int) -> Iterator[Outcome]:
    """The client shows the last utterance only, and says nothing of those before."""
    if shutil.which("go") is None or not (GO_LIBRARIES / "src/github.com/gorilla").exists():
        print("golang/main.go: not run, there is no Go with its libraries", file=sys.stderr)
        return
    source = folder / "main.go"
    _replace(source, 'const Port = "2700"', f'const Port = "{port}"')
    _replace(source, 'Path: ""', 'Path: "/vosk"')
    environment = {"GO111MODULE": "off", "GOPATH": str(GO_LIBRARIES), "GOFLAGS": ""}
    cache = {"GOCACHE": str(folder / "cache")}
    _run(["go", "build", "-o", "client", "main.go"], folder, {**environment, **cache})
    for sample in (CHINESE, ENGLISH):
        output = _run(["./client", str(sample)], folder)
        shown, text = last_logged(output), text_of(sample)
        said = shown if shown and same(text[-len(shown) :], shown) else text
        yield Outcome("golang/main.go", commit, f"last utterance of {sample.name}", said, shown)


def last_logged(output: str) -> str:
    lines = _LOGGED.findall(output)
    return str(lines[-1]) if lines else ""


def java(folder: Path, library: Path, commit: str, port: int) -> Iterator[Outcome]:
    """``library``: the folder with the sources of nv-websocket-client."""
    source = folder / "src/main/java/VoskClient.java"
    _replace(source, "ws://localhost:2700", f"ws://127.0.0.1:{port}/vosk")
    sources = [str(path) for path in sorted(library.rglob("*.java"))]
    _run(["javac", "-nowarn", "-d", "classes", str(source), *sources], folder)
    yield from _of_replies(["java", "-cp", "classes", "VoskClient"], folder, source.name, commit)


def csharp(folder: Path, commit: str, port: int) -> Iterator[Outcome]:
    if shutil.which("mcs") is None:
        print("csharp/test.cs: not run, there is no Mono", file=sys.stderr)
        return
    source = folder / "test.cs"
    _replace(source, "wss://api.alphacephei.com/asr/en/", f"ws://127.0.0.1:{port}/vosk")
    _run(["mcs", source.name], folder)
    yield from _of_replies(["mono", "test.exe"], folder, "csharp/test.cs", commit)


def php(folder: Path, library: Path, commit: str, port: int) -> Iterator[Outcome]:
    """``library``: the folder with the sources of websocket-php."""
    source = folder / "asr-test.php"
    _replace(source, "ws://localhost:2700/", f"ws://127.0.0.1:{port}/vosk")
    # The autoloader that composer would generate.
    vendor = folder / "vendor"
    vendor.mkdir()
    (vendor / "autoload.php").write_text(
        f"<?php require '{PHP_LOG}'; spl_autoload_register(function ($class) {{"
        f" include '{library}/' . str_replace(['WebSocket\\\\', '\\\\'], ['', '/'], $class)"
        " . '.php'; });"
    )
    yield from _of_replies(["php", source.name], folder, source.name, commit)


def _of_replies(command: list[str], folder: Path, name: str, commit: str) -> Iterator[Outcome]:
    """Of a client that reads test.wav, and prints every reply."""
    for sample in (CHINESE, ENGLISH):
        shutil.copy(sample, folder / "test.wav")
        shown = texts(_run(command, folder))
        yield Outcome(name, commit, sample.name, text_of(sample), shown)


def texts(output: str) -> str:
    lines = [line.removeprefix("Result ") for line in output.splitlines()]
    replies = [json.loads(line) for line in lines if line.startswith("{")]
    return join_texts(filter(None, map(vosk_text, replies)))


def _replace(source: Path, address: str, ours: str) -> None:
    text = source.read_text(encoding="utf-8")
    assert address in text
    source.write_text(text.replace(address, ours), encoding="utf-8")


def _run(command: list[str], folder: Path, more: dict[str, str] | None = None) -> str:
    """Return what it prints, also if it does not end: after the last reply, a timer of the library
    in Java sometimes keeps the process alive."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(more or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode()
    return done.stdout
