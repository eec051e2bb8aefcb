"""The desktop app of the system that this one replaces: its own connection code, run by Node with
electron and react stubbed. Its packages come from npm, in the versions that it asks for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf

from tests.public_clients.said import CHINESE, ENGLISH, Outcome, text_of
from tools.lab.encoded_audio import encode
from wire.messages import SAMPLE_RATE_HZ

SOURCES = ("ASR_electron/electron", "ASR_electron/src/hooks", "ASR_electron/package.json")
CLIENT = "ASR_electron/electron/asrClient.ts"
PACKAGES = ("ws", "uuid", "dotenv", "electron-log", "tsx")
"""The app's packages that its connection code imports, and ``tsx``, which runs TypeScript."""
INSTALL_S_MAX = 120.0
TIME_LIMIT_S = 3.6
PROGRAM = Path(__file__).parent / "programs" / "desktop_app.mjs"
_STUBS = {
    "electron": "export const app = { isPackaged: true, getVersion: () => '0', getPath: () => '.',"
    " getName: () => 'app', on() {}, whenReady: async () => {} };\n"
    "export class BrowserWindow {}\nexport const ipcMain = { on() {}, handle() {} };\n"
    "export default { app, BrowserWindow, ipcMain };\n",
    "react": "export const useEffect = (effect) => effect();\n"
    "export const useRef = (current) => ({ current });\n",
}

Pcm = npt.NDArray[np.int16]


def install(folder: Path) -> None:
    """Install what the app's connection code imports, and the stubs, in the app's ``folder``."""
    declared = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    versions = declared["dependencies"] | declared["devDependencies"]
    wanted = {"private": True, "type": "module"}
    packages = {name: versions[name] for name in PACKAGES}
    (folder / "package.json").write_text(json.dumps(wanted | {"dependencies": packages}))
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_S_MAX)
    for name, source in _STUBS.items():
        stub = folder / "node_modules" / name
        stub.mkdir()
        (stub / "package.json").write_text('{"type": "module", "main": "index.js"}')
        (stub / "index.js").write_text(source)
    shutil.copy(PROGRAM, folder)


def recordings(folder: Path, commit: str, port: int, *, long_s: int = 0) -> Iterator[Outcome]:
    """``long_s``: seconds of one more recording."""
    for duration_s in (10, 60, *([long_s] if long_s else [])):
        pcm, text = _recording(duration_s)
        shown = _shown(folder, port, "unlimited", [[pcm]])
        yield Outcome(CLIENT, commit, f"default mode, {duration_s} s", text, shown)
    pcm, text = _recording(10)
    shown = _shown(folder, port, "unlimited", [[pcm], [pcm]])
    how = "default mode, a second recording after 1 s"
    yield Outcome(CLIENT, commit, how, f"{text} {text}", shown)
    shown = _shown(folder, port, "unlimited", [[np.zeros(10 * SAMPLE_RATE_HZ, np.int16)]])
    yield Outcome(CLIENT, commit, "default mode, silence", "", shown)
    pcm, text = _recording(20)
    size = int(TIME_LIMIT_S * SAMPLE_RATE_HZ)
    pieces = [pcm[at : at + size] for at in range(0, len(pcm), size)]
    shown = _shown(folder, port, "time_limit", [pieces])
    yield Outcome(CLIENT, commit, f"time limit, {TIME_LIMIT_S} s", text, shown)


def _recording(duration_s: int) -> tuple[Pcm, str]:
    """Both bundled recordings in turns, with pauses, and their text."""
    pcm = np.zeros(duration_s * SAMPLE_RATE_HZ, np.int16)
    said: list[str] = []
    at = SAMPLE_RATE_HZ // 2
    while True:
        sample = (CHINESE, ENGLISH)[len(said) % 2]
        spoken, rate_hz = sf.read(sample, dtype="int16")
        assert rate_hz == SAMPLE_RATE_HZ
        if at + len(spoken) > len(pcm):
            return pcm, " ".join(said)
        pcm[at : at + len(spoken)] = spoken
        at += len(spoken) + SAMPLE_RATE_HZ
        said.append(text_of(sample))


def _shown(folder: Path, port: int, mode: str, wanted: Sequence[Sequence[Pcm]]) -> str:
    """Return the text that the app shows, or its alerts, or the error if it hangs."""
    plan = {
        "mode": mode,
        "recordings": [
            {
                "chunks": [
                    _file(folder / f"{number}-{index}.wav", pcm) for index, pcm in enumerate(chunks)
                ],
                "pause_ms": 1_000 if number else 0,
            }
            for number, chunks in enumerate(wanted)
        ],
    }
    audio_s = sum(len(pcm) for chunks in wanted for pcm in chunks) / SAMPLE_RATE_HZ
    try:
        done = subprocess.run(
            ["node", "--import", "tsx", PROGRAM.name, json.dumps(plan)],
            cwd=folder,
            env={**os.environ, "VITE_ASR_BACKEND_URL": f"ws://127.0.0.1:{port}/ws/asr"},
            capture_output=True,
            text=True,
            timeout=60 + audio_s,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        return f"{type(error).__name__}: {getattr(error, 'stderr', '')!r}"
    seen = json.loads(done.stdout[done.stdout.rindex('{"segments"') :])
    return str(seen["alerts"] or " ".join(seen["segments"]))


def _file(path: Path, pcm: Pcm) -> str:
    path.write_bytes(encode(pcm, "wav", SAMPLE_RATE_HZ, 1))
    return str(path)
