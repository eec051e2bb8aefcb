"""FunASR's clients in C++. They read audio files with a part of FunASR's engine, which is compiled
with two headers of ``engine`` in the place of its own, so that it needs no ONNX Runtime."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import soundfile as sf

from tests.public_clients.other_languages import can_run, received, run
from tests.public_clients.said import CHINESE, ENGLISH, Outcome, text_of
from tests.public_clients.scripts import FUNASR_MODES, funasr_text

SOURCES = "runtime/websocket/bin"
ENGINE = "runtime/onnxruntime"
HEADERS = Path(__file__).parent / "engine"
NEEDED = [
    Path("/usr/include", header)
    for header in ("websocketpp", "asio.hpp", "nlohmann", "glog", "portaudio.h", "openssl")
]
"""Of Debian's libwebsocketpp-dev, libasio-dev, nlohmann-json3-dev, libgoogle-glog-dev,
portaudio19-dev and libssl-dev."""
_LIBRARIES = ["-lglog", "-lssl", "-lcrypto", "-lportaudio", "-Wl,--gc-sections"]
_AUDIO = ["audio", "util", "resample", "alignedmem", "encode_converter"]


def outcomes(folder: Path, engine: Path, commit: str, port: int) -> Iterator[Outcome]:
    """``folder``, ``engine``: copies of ``SOURCES`` and ``ENGINE``."""
    if not can_run("funasr-wss-client", "g++", *NEEDED):
        return
    raw, both = folder / f"{ENGLISH.stem}.pcm", folder / "both.scp"
    raw.write_bytes(sf.read(ENGLISH, dtype="int16")[0].tobytes())
    both.write_text(f"zh {CHINESE}\nen {ENGLISH}\n")
    files = {CHINESE: text_of(CHINESE), raw: text_of(ENGLISH)}
    options = ["--port", str(port), "--server-ip", "127.0.0.1", "--is-ssl", "0"]
    options += ["--use-itn", "0", "--svs-itn", "0"]
    program = _built("funasr-wss-client", folder, engine)
    for file, said in {**files, both: text_of(CHINESE) + text_of(ENGLISH)}.items():
        output = run([program, *options, "--wav-path", str(file)], folder)
        shown = funasr_text(received(output), "offline")
        yield Outcome("funasr-wss-client", commit, file.name, said, shown)
    program = _built("funasr-wss-client-2pass", folder, engine)
    for mode in FUNASR_MODES:
        for file, said in files.items():
            output = run([program, *options, "--mode", mode, "--wav-path", str(file)], folder)
            shown = funasr_text(received(output), mode)
            how = f"`--mode {mode}`, {file.name}"
            yield Outcome("funasr-wss-client-2pass", commit, how, said, shown)


def _built(program: str, folder: Path, engine: Path) -> str:
    shutil.copy(HEADERS / "precomp.h", engine / "src")
    shutil.copy(HEADERS / "offline-stream.h", engine / "include")
    sources = [f"{program}.cpp", "microphone.cpp"]
    sources += [f"{engine}/src/{name}.cpp" for name in _AUDIO]
    options = [
        "-std=c++17",
        "-w",
        "-ffunction-sections",
        f"-I{engine}/include",
        f"-I{engine}/src",
        "-o",
        program,
    ]
    run(["g++", *options, *sources, *_LIBRARIES], folder)
    return f"./{program}"
