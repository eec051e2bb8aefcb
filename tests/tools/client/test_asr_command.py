"""The installed command, while it is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import asr_client


def test_ctrl_c_while_the_command_is_loaded_shows_no_traceback() -> None:
    program = (
        "import sys, asr_command\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.startswith('typer'): raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "asr_command.main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(asr_client.__file__).parents[1],
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")
