"""The command of the load test: its check of a server, and signals while sessions speak."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from asr_client.exceptions import ServerBusyError
from asr_client.rest import Rest
from tests.tools.client.scripted import scripted_server
from tests.tools.lab.loadtest.test_report import results
from tools.lab.loadtest import __main__ as main
from tools.lab.loadtest.figures import Targets, summary

STOP_S_MAX = 90.0


def running(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tools.lab.loadtest",
            "-c",
            "2",
            "-d",
            "10m",
            "--out",
            str(directory),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "120", "ASR_URL": ""},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "2 speaking" in line:
            return process
    raise AssertionError(f"it ended with {process.wait()}")


def test_a_port_where_nothing_listens_ends_it(unused_tcp_port: int) -> None:
    with pytest.raises(typer.Exit) as ended:
        main.check_server(Console(quiet=True), f"127.0.0.1:{unused_tcp_port}", None, True)
    assert ended.value.exit_code == 1


def test_a_server_that_is_not_ready_may_become_so_and_a_foreign_one_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = Console(quiet=True)
    with scripted_server() as peer:
        for answer, said in ((None, "404"), ("<html>", "is not this server's REST interface")):
            peer.answer = {"health": answer}.get
            with pytest.raises(typer.Exit):
                main.check_server(quiet, peer.url, None, True)
            assert said in capsys.readouterr().err
    monkeypatch.setattr(Rest, "get_json", Mock(side_effect=ServerBusyError(503, "no worker")))
    assert main.check_server(quiet, "127.0.0.1:1", None, True) == ()


@pytest.mark.parametrize(
    "model, is_digits, is_told",
    [("whisper-base", True, True), ("demo", True, False), ("x", False, False)],
)
def test_a_model_that_writes_digits_otherwise_is_told(
    model: str, is_digits: bool, is_told: bool
) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    with scripted_server() as peer:
        peer.answer = lambda _: {"served": [{"name": "any", "model": model}]}
        assert main.check_server(console, peer.url, None, is_digits) == (model,)
    assert ("ASR_MODEL=demo" in console.export_text()) == is_told


@pytest.mark.parametrize(
    "models, is_digits, has_hint",
    [
        (("demo",), True, False),
        (("whisper-base",), True, True),
        (("demo", "whisper-base"), True, True),
        (("whisper-base",), False, False),
    ],
)
def test_wrong_texts_of_another_model_have_a_hint(
    tmp_path: Path, models: tuple[str, ...], is_digits: bool, has_hint: bool
) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    found = results("wrong_text")
    found.samples.models = models
    main._conclude(console, summary(found.outcomes), found, Targets(), tmp_path, is_digits)
    text = console.export_text()
    assert f"model: {', '.join(models)}\n" in text
    assert (main.DIGITS_ONLY in text) == has_hint


def test_the_variable_of_the_other_commands_names_the_server(unused_tcp_port: int) -> None:
    server = f"127.0.0.1:{unused_tcp_port}"
    found = CliRunner().invoke(main.app, ["-c", "1"], env={"ASR_URL": server})
    assert found.exit_code == 1 and f"cannot connect to http://{server}" in found.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_report_and_no_process_is_left(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = running(tmp_path)
    descendants = psutil.Process(process.pid).children(recursive=True)
    assert len(descendants) > 5, "a whole system and the generator"
    process.send_signal(number)
    _, errors = process.communicate(timeout=STOP_S_MAX)
    assert process.returncode == 1
    assert "stopped" in errors
    assert (tmp_path / "loadtest_report.md").is_file()
    _, left = psutil.wait_procs(descendants, timeout=STOP_S_MAX)
    assert not left
