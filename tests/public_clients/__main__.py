"""Unmodified clients of other projects against a system of its own:

python -m tests.public_clients --funasr ../FunASR --vosk ../vosk-server \\
    --app ../kikipounamu --packages /tmp/packages

Only the address, and the names of files, are changed, if a client has them in its source.
``--funasr``, ``--vosk`` and ``--app`` name git clones. The clients are taken from
``FUNASR_COMMIT``, ``FUNASR_COMMIT_BEFORE``, ``VOSK_COMMIT`` and ``APP_COMMIT``, or from ``HEAD``
with ``--head``.
``--packages`` names the folder in which packages from PyPI and npm, and clones of libraries, are
installed. Clients whose option is missing are skipped, and those for which a package of Debian is
missing. Each client must show exactly the spoken text; otherwise the exit code is 1.
docs/dialects.md has the table of the last run, and the packages of Debian.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.public_clients import desktop_app, funasr_cpp, html5, other_languages, packages, scripts
from tests.public_clients.clones import Clone
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
                yield from _vosk(arguments, folder, port)
            if downloads := arguments.packages:
                yield from packages.outcomes(downloads, port)


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
    sources = funasr.copy(funasr_cpp.SOURCES, folder)
    engine = funasr.copy(funasr_cpp.ENGINE, folder)
    yield from funasr_cpp.outcomes(sources, engine, funasr.commit, port)
    if downloads := arguments.packages:
        python = packages.python_with(("websocket-client", "numpy"), downloads)
        library = funasr.copy(scripts.FUNASR_LIBRARY, folder)
        yield from scripts.funasr_library(library, funasr.commit, port, python)
        source = funasr.copy(other_languages.FUNASR_GO, folder)
        yield from other_languages.funasr_go(source, funasr.commit, port, downloads)
        source = funasr.copy(other_languages.FUNASR_JAVA, folder)
        yield from other_languages.funasr_java(source, funasr.commit, port, downloads)


def _vosk(arguments: argparse.Namespace, folder: Path, port: int) -> Iterator[Outcome]:
    vosk = Clone(arguments.vosk, "HEAD" if arguments.head else VOSK_COMMIT)
    clients = vosk.copy("websocket", folder / "vosk")
    yield from scripts.vosk(clients, vosk.commit, port)
    samples = vosk.copy("client-samples", folder / "vosk")
    yield from other_languages.vosk_go(samples / "golang", vosk.commit, port)
    yield from other_languages.vosk_csharp(samples / "csharp", vosk.commit, port)
    if downloads := arguments.packages:
        python = packages.python_with(("srt", "websockets"), downloads)
        yield from scripts.vosk_srt(clients / "test_srt.py", vosk.commit, port, python)
        yield from other_languages.vosk_java(samples / "java", vosk.commit, port, downloads)
        yield from other_languages.vosk_php(samples / "php", vosk.commit, port, downloads)
        yield from other_languages.vosk_node(samples / "node", vosk.commit, port)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.public_clients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--funasr", type=Path, help="a clone of modelscope/FunASR")
    parser.add_argument("--vosk", type=Path, help="a clone of alphacep/vosk-server")
    parser.add_argument("--app", type=Path, help="a clone of fishheadwithchili/kikipounamu")
    parser.add_argument("--long-s", type=int, default=0, help="seconds of a longer recording")
    parser.add_argument(
        "--packages", type=Path, help="a folder for packages of PyPI and npm, and for clones"
    )
    parser.add_argument("--head", action="store_true", help="use the newest commits of the clones")
    arguments = parser.parse_args()
    if arguments.packages:
        arguments.packages = arguments.packages.resolve()
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
