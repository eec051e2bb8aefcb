"""Clients of FunASR and vosk-server in Go, Java, C#, PHP and JavaScript, with the libraries
that they use: packages of Debian and npm, and ``clones.LIBRARIES``."""

from __future__ import annotations

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
from tests.public_clients.clones import library, replace
from tests.public_clients.said import CHINESE, ENGLISH, Outcome, same, text_of
from tests.public_clients.scripts import (
    FUNASR_MODES,
    IN_DIGITS,
    funasr_text,
    last_shown,
    vosk_text,
)

FUNASR_GO = "runtime/golang/websocket/go_ws_client.go"
FUNASR_JAVA = "runtime/java/FunasrWsClient.java"
GO_LIBRARIES = Path("/usr/share/gocode")
GORILLA = GO_LIBRARIES / "src/github.com/gorilla/websocket"
LOGRUS = GO_LIBRARIES / "src/github.com/sirupsen/logrus"
"""Of Debian's golang-github-gorilla-websocket-dev and golang-github-sirupsen-logrus-dev."""
JARS = [
    Path("/usr/share/java", name)
    for name in ("json-simple.jar", "argparse4j.jar", "slf4j-api.jar", "slf4j-simple.jar")
]
"""Of Debian's libjson-simple-java, libargparse4j-java and libslf4j-java."""
PHP_LOG = Path("/usr/share/php/Psr/Log/autoload.php")
"""Of Debian's php-psr-log, which the library in PHP needs."""
WS_FOR_NODE = "ws@7"
"""From version 8 on, the client would print bytes instead of texts."""
RUN_S_MAX = 60.0
_LOGGED = re.compile(r'level=info msg="?(.*?)"?$', re.MULTILINE)
_RECEIVED = re.compile(r"(?: received: |on_message = )(\{.*\})$", re.MULTILINE)


def funasr_go(source: Path, commit: str, port: int, downloads: Path) -> Iterator[Outcome]:
    """The client has its options in its source, and reads ``../audio/asr_example.wav``. It asks for
    numbers in digits."""
    if not can_run("go_ws_client.go", "go", GORILLA):
        return
    folder = source.parent
    replace(source, 'port = "10095"', f'port = "{port}"')
    replace(source, "/workspace/models", str(folder))
    (folder / "Outputs").mkdir()
    (folder / "hotword.txt").write_text("seven 20\n")
    for name in ("go-audio/wav", "go-audio/audio", "go-audio/riff"):
        library(name, downloads).copy(".", folder / "src/github.com" / name)
    _build_go(source, f"{folder}:{GO_LIBRARIES}")
    audio = folder.parent / "audio"
    audio.mkdir()
    for sample, written in IN_DIGITS.items():
        shutil.copy(sample, audio / "asr_example.wav")
        shown = last_shown(run(["./client"], folder))
        yield Outcome(source.name, commit, sample.name, written, shown)


def funasr_java(source: Path, commit: str, port: int, downloads: Path) -> Iterator[Outcome]:
    if not can_run(source.name, "javac", *JARS):
        return
    folder = source.parent
    sources = library("TooTallNate/Java-WebSocket", downloads).copy("src/main/java", folder)
    jars = [str(path) for path in JARS]
    _build_java(source, sources, jars)
    program = ["java", "-Dfile.encoding=utf-8", "-cp", ":".join(("classes", *jars))]
    for mode in FUNASR_MODES:
        for sample in (CHINESE, ENGLISH):
            options = ["--port", str(port), "--audio_in", str(sample), "--mode", mode]
            output = run([*program, "websocket.FunasrWsClient", *options], folder)
            shown = funasr_text(received(output), mode)
            how = f"`--mode {mode}`, {sample.name}"
            yield Outcome(source.name, commit, how, text_of(sample), shown)


def received(output: str) -> list[dict[str, Any]]:
    """The replies that FunASR's clients in Java and C++ log."""
    return [json.loads(reply) for reply in _RECEIVED.findall(output)]


def vosk_go(folder: Path, commit: str, port: int) -> Iterator[Outcome]:
    """The client shows the last utterance only, and says nothing of those before."""
    if not can_run("golang/main.go", "go", GORILLA, LOGRUS):
        return
    source = folder / "main.go"
    replace(source, 'const Port = "2700"', f'const Port = "{port}"')
    replace(source, 'Path: ""', 'Path: "/vosk"')
    _build_go(source, str(GO_LIBRARIES))
    for sample in (CHINESE, ENGLISH):
        output = run(["./client", str(sample)], folder)
        shown, text = last_logged(output), text_of(sample)
        said = shown if shown and same(text[-len(shown) :], shown) else text
        yield Outcome("golang/main.go", commit, f"last utterance of {sample.name}", said, shown)


def last_logged(output: str) -> str:
    lines = _LOGGED.findall(output)
    return str(lines[-1]) if lines else ""


def vosk_java(folder: Path, commit: str, port: int, downloads: Path) -> Iterator[Outcome]:
    source = folder / "src/main/java/VoskClient.java"
    if not can_run(source.name, "javac"):
        return
    replace(source, "ws://localhost:2700", f"ws://127.0.0.1:{port}/vosk")
    websocket = library("TakahikoKawasaki/nv-websocket-client", downloads)
    sources = websocket.copy("src/main/java", folder / "library")
    _build_java(source, sources, [])
    command = ["java", "-cp", "classes", "VoskClient"]
    yield from _of_replies(command, source.parent, source.name, commit)


def vosk_csharp(folder: Path, commit: str, port: int) -> Iterator[Outcome]:
    if not can_run("csharp/test.cs", "mcs", "mono"):
        return
    source = folder / "test.cs"
    replace(source, "wss://api.alphacephei.com/asr/en/", f"ws://127.0.0.1:{port}/vosk")
    run(["mcs", source.name], folder)
    yield from _of_replies(["mono", "test.exe"], folder, "csharp/test.cs", commit)


def vosk_php(folder: Path, commit: str, port: int, downloads: Path) -> Iterator[Outcome]:
    source = folder / "asr-test.php"
    if not can_run(source.name, "php", PHP_LOG):
        return
    replace(source, "ws://localhost:2700/", f"ws://127.0.0.1:{port}/vosk")
    sources = library("Textalk/websocket-php", downloads).copy("lib", folder)
    # The autoloader that composer would generate.
    vendor = folder / "vendor"
    vendor.mkdir()
    (vendor / "autoload.php").write_text(
        f"<?php require '{PHP_LOG}'; spl_autoload_register(function ($class) {{"
        f" include '{sources}/' . str_replace(['WebSocket\\\\', '\\\\'], ['', '/'], $class)"
        " . '.php'; });"
    )
    yield from _of_replies(["php", source.name], folder, source.name, commit)


def vosk_node(folder: Path, commit: str, port: int) -> Iterator[Outcome]:
    if not can_run("node/test.js", "npm"):
        return
    replace(folder / "test.js", "wss://api.alphacephei.com/asr/en/", f"ws://127.0.0.1:{port}/vosk")
    run(["npm", "install", "--silent", WS_FOR_NODE], folder)
    yield from _of_replies(["node", "test.js"], folder, "node/test.js", commit)


def _of_replies(command: list[str], folder: Path, name: str, commit: str) -> Iterator[Outcome]:
    """Of a client that reads test.wav, and prints every reply."""
    for sample in (CHINESE, ENGLISH):
        shutil.copy(sample, folder / "test.wav")
        shown = texts(run(command, folder))
        yield Outcome(name, commit, sample.name, text_of(sample), shown)


def texts(output: str) -> str:
    lines = [line.removeprefix("Result ") for line in output.splitlines()]
    replies = [json.loads(line) for line in lines if line.startswith("{")]
    return join_texts(filter(None, map(vosk_text, replies)))


def can_run(client: str, *needed: str | Path) -> bool:
    missing = [
        str(name) for name in needed if shutil.which(name) is None and not Path(name).exists()
    ]
    if missing:
        print(f"{client}: not run, there is no {', '.join(missing)}", file=sys.stderr)
    return not missing


def _build_go(source: Path, libraries: str) -> None:
    environment = {"GO111MODULE": "off", "GOPATH": libraries, "GOFLAGS": ""}
    cache = {"GOCACHE": str(source.parent / "cache")}
    command = ["go", "build", "-o", "client", source.name]
    run(command, source.parent, {**environment, **cache})


def _build_java(source: Path, library: Path, jars: list[str]) -> None:
    sources = [str(path) for path in (source, *sorted(library.rglob("*.java")))]
    options = ["-nowarn", "-encoding", "UTF-8", "-d", "classes", "-cp", ":".join(jars)]
    run(["javac", *options, *sources], source.parent)


def run(command: list[str], folder: Path, more: dict[str, str] | None = None) -> str:
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
