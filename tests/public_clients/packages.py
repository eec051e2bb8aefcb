"""Clients that are packages of PyPI and npm: each program in ``programs`` uses one as its
documentation shows, with only the address changed, and prints the final texts as lines."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.public_clients.said import CHINESE, ENGLISH, Outcome, text_of

PROGRAMS = Path(__file__).parent / "programs"
RUN_S_MAX = 90.0
INSTALL_S_MAX = 1_200.0


@dataclass(frozen=True)
class Client:
    """``program`` is a file of ``programs``, called with ``arguments`` before the address and the
    file; ``packages`` are what it needs, the client first."""

    program: str
    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.packages[0].rpartition("==" if self._python else "@")[0]

    @property
    def version(self) -> str:
        return self.packages[0].rpartition("==" if self._python else "@")[2]

    @property
    def _python(self) -> bool:
        return self.program.endswith(".py")


CLIENTS = (
    Client("deepgram_sdk.py", ("deepgram-sdk==7.17.0",)),
    Client("deepgram_file.py", ("deepgram-sdk==7.17.0",)),
    Client("deepgram_sdk.mjs", ("@deepgram/sdk@5.13.0",)),
    Client("livekit_deepgram.py", ("livekit-plugins-deepgram==1.8.9",)),
    Client("pipecat_service.py", ("pipecat-ai==1.14.0", "deepgram-sdk==7.17.0"), ("deepgram",)),
    Client("openai_realtime.py", ("openai==3.57.0", "websockets")),
    Client("openai_realtime.mjs", ("openai@6.49.0", "ws@8.23.0", "selfsigned@5.5.0")),
    Client("livekit_openai.py", ("livekit-plugins-openai==1.8.9",)),
    Client("pipecat_service.py", ("pipecat-ai==1.14.0", "openai==3.57.0"), ("openai",)),
)


def outcomes(folder: Path, port: int) -> Iterator[Outcome]:
    """Run each client. Packages are installed in ``folder``, and stay there for the next time."""
    for client in CLIENTS:
        command = _command(client, folder)
        if command is None:
            print(f"{client.name}: not run, there is no npm", file=sys.stderr)
            continue
        for sample in (CHINESE, ENGLISH):
            address = f"127.0.0.1:{port}"
            shown = _output([*command, *client.arguments, address, str(sample)], folder)
            yield Outcome(
                client.name,
                client.version,
                " ".join((client.program, *client.arguments)) + f", {sample.name}",
                text_of(sample),
                shown,
            )


def _command(client: Client, folder: Path) -> list[str] | None:
    """Install the client's packages and return the command that runs it; None without npm."""
    program = str(PROGRAMS / client.program)
    if program.endswith(".py"):
        return [python_with(client.packages, folder), program]
    if (npm := shutil.which("npm")) is None:
        return None
    _run([npm, "install", "--silent", *client.packages], folder)
    # Node looks for packages beside the program.
    return ["node", shutil.copy(program, str(folder))]


def python_with(packages: Sequence[str], folder: Path) -> str:
    """Install ``packages`` in ``folder`` and return its Python interpreter."""
    python = folder / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(python)], folder)
    _run([str(python / "bin" / "pip"), "install", "-q", *packages], folder)
    return str(python / "bin" / "python")


def _run(command: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True, cwd=folder, timeout=INSTALL_S_MAX)


def _output(command: list[str], folder: Path) -> str:
    """Return its standard output, or nothing if it hangs. It inherits our standard error."""
    try:
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, text=True, timeout=RUN_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout
