"""Unmodified clients of other projects against a system of its own:

python -m tests.public_clients --funasr ../FunASR --vosk ../vosk-server \\
    --app ../kikipounamu --packages /tmp/packages

Only the address is changed, which vosk-server's clients have in their source. ``--funasr``,
``--vosk`` and ``--app`` name git clones. The clients are taken from ``FUNASR_COMMIT``,
``FUNASR_COMMIT_BEFORE``, ``VOSK_COMMIT`` and ``APP_COMMIT``, or from ``HEAD`` with ``--head``.
``--packages`` names the folder in which packages from PyPI and npm are installed. Clients whose
option is missing are skipped. vosk-server's clients in Go, Java and PHP need the libraries that
``compiled`` names. Each client must show exactly the spoken text; otherwise the exit code is 1.
docs/dialects.md has the table of the last run.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.public_clients import compiled, desktop_app, html5, packages, scripts
from tests.public_clients.said import Outcome
from tools.lab.harness.stack import supervised_stack

FUNASR_COMMIT = "3c58cb56a"
"""Of August 2026, release 1.4.3."""
FUNASR_COMMIT_BEFORE = "ae49b2a8e"
"""Of November 2024. Until February 2026 the client ended without waiting for an
acknowledgement."""
VOSK_COMMIT = "c2e82f029"
"""Of May 2025."""
APP_COMMIT = "8b100cc"


@dataclass(frozen=True)
class Clone:
    """One commit of a git clone."""

    folder: Path
    commit: str

    def copy(self, path: str, target: Path) -> Path:
        """The file or folder at ``path``, unchanged, in ``target``."""
        archive = ["git", "-C", str(self.folder), "archive", self.commit, path]
        packed = subprocess.run(archive, check=True, capture_output=True).stdout
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-x", "-C", str(target)], input=packed, check=True)
        return target / path


def _desktop_app(arguments: argparse.Namespace, folder: Path) -> Iterator[Outcome]:
    app = Clone(arguments.app, "HEAD" if arguments.head else APP_COMMIT)
    for path in desktop_app.SOURCES:
        app.copy(path, folder)
    desktop_app.install(folder / "ASR_electron")
    with supervised_stack({}) as stack:
        yield from desktop_app.recordings(
            folder / "ASR_electron", app.commit, stack.ports["gateway"], long_s=arguments.long_s
        )


def _outcomes(arguments: argparse.Namespace, folder: Path) -> Iterator[Outcome]:
    with html5.served(folder) as origin:
        settings = {"ALLOWED_ORIGINS": origin, "ASR_MODEL": "demo"}
        with supervised_stack(settings) as stack:
            port = stack.ports["gateway"]
            if arguments.funasr:
                yield from _funasr(arguments, folder, origin, port)
            if arguments.vosk:
                vosk = Clone(arguments.vosk, "HEAD" if arguments.head else VOSK_COMMIT)
                clients = vosk.copy("websocket", folder / "vosk")
                yield from scripts.vosk(clients, vosk.commit, port)
                yield from _vosk_compiled(arguments, vosk, folder, port)
            if arguments.packages:
                yield from packages.outcomes(arguments.packages.resolve(), port)


def _vosk_compiled(
    arguments: argparse.Namespace, vosk: Clone, folder: Path, port: int
) -> Iterator[Outcome]:
    samples = vosk.copy("client-samples", folder / "vosk")
    yield from compiled.go(samples / "golang", vosk.commit, port)
    yield from compiled.csharp(samples / "csharp", vosk.commit, port)
    if arguments.nv_websocket:
        library = Clone(arguments.nv_websocket, compiled.NV_WEBSOCKET_TAG)
        sources = library.copy("src/main/java", folder / "nv-websocket")
        yield from compiled.java(samples / "java", sources, vosk.commit, port)
    if arguments.php_websocket:
        library = Clone(arguments.php_websocket, compiled.PHP_WEBSOCKET_TAG)
        sources = library.copy("lib", folder / "php-websocket")
        yield from compiled.php(samples / "php", sources, vosk.commit, port)


def _funasr(
    arguments: argparse.Namespace, folder: Path, origin: str, port: int
) -> Iterator[Outcome]:
    funasr = Clone(arguments.funasr, "HEAD" if arguments.head else FUNASR_COMMIT)
    before = Clone(arguments.funasr, FUNASR_COMMIT_BEFORE)
    for clone in (funasr, before):
        script = clone.copy(scripts.FUNASR_CLIENT, folder / clone.commit)
        yield from scripts.funasr(script, clone.commit, port)
    newer = funasr.copy(scripts.FUNASR_REALTIME, folder)
    yield from scripts.funasr_realtime(newer, funasr.commit, port)
    recognition = funasr.copy(scripts.FUNASR_HTTP, folder)
    yield from scripts.funasr_http(recognition, funasr.commit, port)
    smoke_test = funasr.copy(scripts.FUNASR_SMOKE_TEST, folder)
    yield from scripts.funasr_smoke_test(smoke_test, funasr.commit, port)
    page = funasr.copy(html5.PAGE, folder)
    address = f"{origin}/{page.relative_to(folder)}"
    yield from html5.in_browser(address, funasr.commit, port, folder)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.public_clients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--funasr", type=Path, help="a clone of modelscope/FunASR")
    parser.add_argument("--vosk", type=Path, help="a clone of alphacep/vosk-server")
    parser.add_argument(
        "--nv-websocket",
        type=Path,
        help="a clone of TakahikoKawasaki/nv-websocket-client, for vosk-server's client in Java",
    )
    parser.add_argument(
        "--php-websocket",
        type=Path,
        help="a clone of Textalk/websocket-php, for vosk-server's client in PHP",
    )
    parser.add_argument("--app", type=Path, help="a clone of fishheadwithchili/kikipounamu")
    parser.add_argument("--long-s", type=int, default=0, help="seconds of a longer recording")
    parser.add_argument("--packages", type=Path, help="a folder for packages of PyPI and npm")
    parser.add_argument("--head", action="store_true", help="use the newest commits of the clones")
    arguments = parser.parse_args()
    wrong = 0
    print("| client | version | how | shown |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="asr-clients-") as folder:
        outcomes: list[Iterator[Outcome]] = []
        if arguments.app is not None:
            outcomes.append(_desktop_app(arguments, Path(folder)))
        if arguments.funasr or arguments.vosk or arguments.packages:
            outcomes.append(_outcomes(arguments, Path(folder)))
        if not outcomes:
            parser.error("give --funasr, --vosk, --app or --packages")
        for outcome in itertools.chain(*outcomes):
            print(outcome.row(), flush=True)
            wrong += not outcome.right
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
