"""Unmodified clients of other projects against a system of its own:

python -m tests.public_clients --funasr ../FunASR --vosk ../vosk-server

Only the address is changed, which vosk-server's clients have in their source. Both options are git
clones; the clients are taken from ``FUNASR_COMMIT``, ``FUNASR_COMMIT_BEFORE`` and ``VOSK_COMMIT``,
or from ``HEAD`` with ``--head``. Each client must show exactly the spoken text; otherwise the exit
code is 1. docs/dialects.md has the table of the last run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.public_clients import html5, scripts
from tests.public_clients.said import Outcome
from tools.lab.harness.stack import supervised_stack

FUNASR_COMMIT = "3c58cb56a"
"""Of August 2026, release 1.4.3."""
FUNASR_COMMIT_BEFORE = "ae49b2a8e"
"""Of November 2024. Until February 2026 the client ended without waiting for an
acknowledgement."""
VOSK_COMMIT = "c2e82f029"
"""Of May 2025."""


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


def _outcomes(arguments: argparse.Namespace, folder: Path) -> Iterator[Outcome]:
    funasr = Clone(arguments.funasr, "HEAD" if arguments.head else FUNASR_COMMIT)
    before = Clone(arguments.funasr, FUNASR_COMMIT_BEFORE)
    vosk = Clone(arguments.vosk, "HEAD" if arguments.head else VOSK_COMMIT)
    page = html5.served(funasr.copy("runtime/html5/static", folder / "html5"))
    with page as origin, supervised_stack({"ALLOWED_ORIGINS": origin}) as stack:
        port = stack.ports["gateway"]
        for clone in (funasr, before):
            script = clone.copy(scripts.FUNASR_CLIENT, folder / clone.commit)
            yield from scripts.funasr(script, clone.commit, port)
        yield from html5.in_browser(origin, funasr.commit, port, folder)
        clients = vosk.copy("websocket", folder / "vosk")
        yield from scripts.vosk(clients, vosk.commit, port)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.public_clients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--funasr", type=Path, required=True, help="a clone of modelscope/FunASR")
    parser.add_argument("--vosk", type=Path, required=True, help="a clone of alphacep/vosk-server")
    parser.add_argument("--head", action="store_true", help="use the newest commits of the clones")
    arguments = parser.parse_args()
    wrong = 0
    print("| client | commit | how | shown |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="asr-clients-") as folder:
        for outcome in _outcomes(arguments, Path(folder)):
            print(outcome.row(), flush=True)
            wrong += not outcome.right
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
