"""Fixtures of the commands' tests."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.tools.client import patient_asr
from tests.tools.client.scripted import Peer, scripted_server

Command = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def scripted() -> Iterator[Peer]:
    with scripted_server() as peer:
        yield peer


@pytest.fixture
def command() -> Iterator[Command]:
    """Starts ``asr`` with arguments, in a process of its own."""
    with contextlib.ExitStack() as running:

        def start(*arguments: str, module: str = patient_asr.MODULE) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield start
