"""``asr serve``: checks before the start, readiness, and the whole command."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from rich.console import Console

from asr_worker.settings import WorkerSettings
from gateway.settings import GatewaySettings
from gateway.web import auth_tokens
from runtime import exit_codes, lifecycle
from tools.cli import self_check, serve
from tools.lab.harness.ports import free_port
from tools.ops.procfile import Honcho

ROOT = Path(__file__).parents[3]


def run_command(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.cli.serve"],
        cwd=ROOT,
        env={**os.environ, "ASR_MODEL": "fake:1ms", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "name, value",
    [
        ("LOG_LEVEL", "loud"),
        ("PORT", "70000"),
        ("PORT", "http"),
        ("MAX_CONNECTIONS", "many"),
        ("ASR_MODEL", "/no/such/model"),
        ("ASR_MODEL", "paraformr-zh"),
        ("ASR_MODEL_SOURCES", "ftp"),
        ("ASR_WORKERS", "0"),
    ],
)
def test_a_wrong_setting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv("ASR_MODEL", "fake:1ms")
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        serve.load_settings()
    assert ended.value.code == exit_codes.CONFIG
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {name}: ")
    assert err.count("\n") == 1


def test_a_file_gives_the_settings_that_the_environment_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PORT", "8082")
    monkeypatch.setenv("DATA_DIR", "")
    monkeypatch.setenv("MIN_WORKERS", "to be restored")
    monkeypatch.delenv("MIN_WORKERS")
    file = tmp_path / ".env"
    serve.read_env_file(file)  # It need not exist.
    file.write_text("# Mine\nPORT=8081\nDATA_DIR=/data\nMIN_WORKERS=2\n")
    serve.read_env_file(file)
    values, _ = serve.load_settings()
    assert (values.port, values.data_dir, values.min_workers) == (8082, Path("/data"), 2)


def test_lines_of_the_file_may_have_what_editors_add(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PORT", "DB_USER", "ASR_MODEL"):
        monkeypatch.setenv(name, "")
    file = tmp_path / ".env"
    file.write_bytes(
        b"\xef\xbb\xbfPORT=8081\r\n\r\n  # Mine\r\nDB_USER=\r\nASR_MODEL = 'demo' # small"
    )
    serve.read_env_file(file)
    assert [os.environ[name] for name in ("PORT", "DB_USER", "ASR_MODEL")] == ["8081", "", "demo"]


@pytest.mark.parametrize(
    "line", ["export DB_PASSWORD=secret", "DB_PASSWORD: secret", "secret", "DB_PASSWORD='secret"]
)
def test_a_line_of_the_file_that_is_no_setting_is_named_and_not_quoted(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ".env"
    file.write_text(f"# Mine\nPORT=8081\n{line}\n")
    with pytest.raises(SystemExit) as ended:
        serve.read_env_file(file)
    assert ended.value.code == exit_codes.CONFIG
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot read {file}, line 3: ") and "secret" not in error


@pytest.mark.parametrize("content", [b"DB_USER='\n", b"\xff"])
def test_a_file_that_is_not_valid_is_one_line(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        serve.read_env_file(file)
    assert ended.value.code == exit_codes.CONFIG
    assert str(file) in capsys.readouterr().err


def test_a_wrong_setting_ends_it_before_anything_starts() -> None:
    ended = run_command(ASR_MODEL="paraformr-zh")
    assert ended.returncode == exit_codes.CONFIG
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ASR_MODEL: ")
    assert ended.stderr.count("\n") == 1


def listener(port: int = 0, *, shared: bool = False) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    return listening


def test_a_port_in_use_is_one_line_before_anything_starts() -> None:
    with listener() as listening:
        port = listening.getsockname()[1]
        ended = run_command(PORT=str(port))
    assert ended.returncode == exit_codes.UNAVAILABLE
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"error: cannot serve on 127.0.0.1:{port}: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_in_use_is_refused(shared: bool) -> None:
    with listener(shared=shared) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(serve.ServeError) as refused:
            serve.check_port("127.0.0.1", port)
        assert refused.value.code == exit_codes.UNAVAILABLE
    serve.check_port("127.0.0.1", port)


def test_connections_in_time_wait_do_not_occupy_the_port() -> None:
    with listener() as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            listening.accept()[0].close()  # This side closes first, so it is left in TIME_WAIT.
    serve.check_port("127.0.0.1", port)


@pytest.mark.parametrize("port, expected", [("", "8080"), (" ", "8080"), ("8471.0", "8471")])
def test_honcho_gets_the_port_that_the_settings_have(
    monkeypatch: pytest.MonkeyPatch, port: str, expected: str
) -> None:
    monkeypatch.setenv("PORT", port)
    values, _ = serve.load_settings()
    assert os.environ["PORT"] == str(values.port) == expected


def test_the_default_port_of_honcho_is_refused() -> None:
    with pytest.raises(serve.ServeError) as refused:
        serve.check_port("127.0.0.1", 5000)
    assert refused.value.code == exit_codes.CONFIG


def test_an_address_of_another_machine_is_refused() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(serve.ServeError, match=rf"{host}:8080: .*; HOST must be") as refused:
            serve.check_port(host, 8080)
        assert "PORT=" not in str(refused.value)


def test_a_port_that_this_user_may_not_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe(socket.socket):
        def bind(self, address: Any) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket, "socket", Probe)
    with pytest.raises(serve.ServeError, match="choose a higher PORT"):
        serve.check_port("127.0.0.1", 80)


def test_the_command_for_another_port_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    serve.show_addresses("http://127.0.0.1:8471", {}, Console(width=80))
    assert "asr transcribe --url http://127.0.0.1:8471 FILE\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", None),
        ("192.168.0.5", None),
        ("0.0.0.0", "10.1.2.3"),
        ("::", "2001:db8::5"),
    ],
)
def test_a_server_on_all_addresses_prints_one_that_others_can_reach(
    monkeypatch: pytest.MonkeyPatch, host: str, expected: str | None
) -> None:
    class Probe(socket.socket):
        def connect(self, address: Any) -> None:
            # A machine without IPv4, if it listens on IPv6.
            if ("." in address[0]) is (host == "::"):
                raise OSError(errno.ENETUNREACH, "no route")

        def getsockname(self) -> Any:
            return (expected, 0)

    monkeypatch.setattr(socket, "socket", Probe)
    assert serve.address_for_others(host) == expected


def test_no_address_is_printed_without_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    def unroutable(*_: Any) -> None:
        raise OSError(errno.ENETUNREACH, "no route")

    monkeypatch.setattr(socket.socket, "connect", unroutable)
    assert serve.address_for_others("::") is None


@pytest.mark.parametrize(
    ("host", "url"), [("10.1.2.3", "http://10.1.2.3:8471"), ("::1", "http://[::1]:8471")]
)
def test_the_address_for_others_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], host: str, url: str
) -> None:
    monkeypatch.setenv("PORT", "8471")
    assert serve.url_of(GatewaySettings(), host) == url
    serve.show_addresses("http://127.0.0.1:8471", {}, Console(width=80), url)
    assert f"Other hosts  {url}/" in capsys.readouterr().out


# --------------------------------------------------------------------------------------- readiness


@dataclass
class Ended:
    """The attributes of a ``Honcho`` that ``wait_until_ready`` uses."""

    exit_code: int | None = None
    errors: list[str] = field(default_factory=list)


def ready(honcho: Ended, url: str, stop: lifecycle.StopSignal) -> dict[str, Any]:
    with Console(quiet=True).status("") as status:
        return serve.wait_until_ready(cast(Honcho, honcho), url, stop, status)


class Health(HTTPServer):
    """Answers /api/v1/health with one body after another; the last one is repeated."""

    def __init__(self, *bodies: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.bodies = list(bodies)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        bodies = cast(Health, self.server).bodies
        body = bodies.pop(0) if len(bodies) > 1 else bodies[0]
        self.send_response(503 if b"unavailable" in body else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def body(status: str) -> bytes:
    return json.dumps({"status": status}).encode()


@pytest.fixture
def health(request: pytest.FixtureRequest) -> Iterator[Health]:
    with Health(*request.param) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def stop() -> Iterator[lifecycle.StopSignal]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield lifecycle.StopSignal()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "health",
    [[body("unavailable"), b"<html>", b"[]", body("degraded"), body("ready")]],
    indirect=True,
)
def test_ready_when_the_health_is_ok(health: Health, stop: lifecycle.StopSignal) -> None:
    assert ready(Ended(), health.url, stop) == {"status": "ready"}


@pytest.mark.parametrize("health", [[b'{"code": "unauthorized"}']], indirect=True)
def test_a_gateway_that_requires_a_token(health: Health, stop: lifecycle.StopSignal) -> None:
    with pytest.raises(serve.ServeError, match="set ASR_TOKEN"):
        ready(Ended(), health.url, stop)


@pytest.mark.parametrize("health", [[body("degraded")]], indirect=True)
def test_the_wait_for_a_missing_database_is_limited(
    health: Health, stop: lifecycle.StopSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "DEGRADED_S_MAX", 0.2)
    assert ready(Ended(), health.url, stop) == {"status": "degraded"}


@pytest.mark.parametrize("health", [[body("unavailable")]], indirect=True)
def test_the_wait_for_readiness_is_limited(
    health: Health, stop: lifecycle.StopSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "READY_S_MAX", 0.2)
    with pytest.raises(serve.ServeError, match="not ready after"):
        ready(Ended(), health.url, stop)


def test_the_self_check_needs_a_token_if_clients_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serve.check_token(None, has_provider=False) is None
    access = auth_tokens.Access(digest=auth_tokens.hash_of("right"))
    auth_tokens.write(tmp_path / "tokens", {"operator": access})
    known = auth_tokens.AuthTokens(tmp_path / "tokens")
    monkeypatch.setenv("ASR_TOKEN", "right")
    assert serve.check_token(known, has_provider=False) == "right"
    monkeypatch.setenv("ASR_TOKEN", "wrong")
    with pytest.raises(serve.ServeError, match="ASR_TOKEN") as caught:
        serve.check_token(known, has_provider=False)
    assert caught.value.code == exit_codes.CONFIG and "wrong" not in str(caught.value)


def test_a_process_that_ended_is_reported_with_its_error(stop: lifecycle.StopSignal) -> None:
    ended = Ended(69, ["broker: cannot bind tcp://127.0.0.1:7101"])
    with pytest.raises(serve.ServeError, match="broker: cannot bind") as caught:
        ready(ended, "http://127.0.0.1:1", stop)
    assert caught.value.code == 69


def test_a_stop_request_ends_the_wait(stop: lifecycle.StopSignal) -> None:
    stop.request()
    assert ready(Ended(), "http://127.0.0.1:1", stop) == {}


# ------------------------------------------------------------------------------------------ models


def pulled(stop: lifecycle.StopSignal, tmp_path: Path, **settings: str) -> tuple[list[str], str]:
    """Models to serve, and what was printed."""
    shown = io.StringIO()
    values = WorkerSettings(asr_model_dir=tmp_path, **settings)  # type: ignore[arg-type]
    models = serve.pull_models(values, stop, Console(file=shown, width=200))
    return models, shown.getvalue()


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For the process that pulls."""
    monkeypatch.delenv("ASR_MODEL", raising=False)
    monkeypatch.setenv("ASR_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("ASR_MODEL_SOURCES", "openai=http://127.0.0.1:1")


def test_models_that_are_here_are_not_pulled(stop: lifecycle.StopSignal, tmp_path: Path) -> None:
    assert pulled(stop, tmp_path, asr_model="demo") == (["demo"], "")
    (tmp_path / "whisper-base").mkdir()
    assert pulled(stop, tmp_path, asr_models="a=whisper-base,b=demo") == (
        ["whisper-base", "demo"],
        "",
    )


@pytest.mark.usefixtures("unreachable")
def test_without_a_source_the_bundled_model_serves(
    stop: lifecycle.StopSignal, tmp_path: Path
) -> None:
    models, shown = pulled(stop, tmp_path)
    assert models == ["demo"]
    assert "No source of whisper-base answers" in shown


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"asr_model": "whisper-base"}, exit_codes.UNAVAILABLE),
        ({"asr_punc_model": "ct-punc"}, exit_codes.UNAVAILABLE),
        ({"asr_model": "paraformer-zh"}, exit_codes.CONFIG),
    ],
)
def test_a_model_that_was_asked_for_has_no_substitute(
    settings: dict[str, str],
    code: int,
    stop: lifecycle.StopSignal,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(serve.ServeError) as caught:
        pulled(stop, tmp_path, **settings)
    assert caught.value.code == code
    assert capfd.readouterr().err.splitlines()[-1].startswith("error: ")


def test_a_stop_ends_the_pulling(
    stop: lifecycle.StopSignal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listener() as silent:
        monkeypatch.setenv("ASR_MODEL_DIR", str(tmp_path))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("ASR_MODEL_SOURCES", f"openai={address}")
        stop.request()
        pulled(stop, tmp_path, asr_model="whisper-base")


# -------------------------------------------------------------------------------------- self-check


def heard(path: Path, text: str) -> self_check.Heard:
    expected = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
    return self_check.Heard(path=path, text=text, expected=expected, duration_s=5.0, stored=True)


def checked(
    models: list[str],
    stop: lifecycle.StopSignal,
    monkeypatch: pytest.MonkeyPatch,
    **texts: str,
) -> str:
    """What is printed if the system hears ``texts``, by the recordings' names."""

    def hear(path: Path, *_arguments: object) -> self_check.Heard:
        return heard(path, texts[path.stem])

    monkeypatch.setattr(self_check, "hear", hear)
    shown = io.StringIO()
    serve.check("ws://x", models, stop, Console(file=shown, width=300), None)
    return shown.getvalue()


def test_a_small_error_or_one_language_is_enough(
    stop: lifecycle.StopSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"speech_en": "Good morning, the train to city is late", "speech_zh": "Oh my"}
    shown = checked(["whisper-base"], stop, monkeypatch, **texts)
    assert "speech_en.flac  (5.0 s, stored)  Good morning" in shown
    assert "none of" not in shown


def test_the_default_model_must_hear_something(
    stop: lifecycle.StopSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"speech_en": "", "speech_zh": "Thank you."}
    with pytest.raises(serve.ServeError, match="none of the recordings is recognised"):
        checked(["whisper-base"], stop, monkeypatch, **texts)
    assert "none of the recordings is recognised" in checked(
        ["/my/model"], stop, monkeypatch, **texts
    )


# ------------------------------------------------------------------------------- the whole command


class Started:
    """The command with its own ports and data, in a process group as a terminal makes it."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port = free_port()
        self.marker = f"DATA_DIR={directory / 'data'}"
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.cli.serve"],
            cwd=ROOT,
            env={
                **os.environ,
                "ASR_MODEL": "demo",
                "PORT": str(self.port),
                "DATA_DIR": str(directory / "data"),
                **environment,
                "BROKER_FRONTEND": f"ipc://{directory}/front",
                "BROKER_BACKEND": f"ipc://{directory}/back",
                "BROKER_EVENTS": f"ipc://{directory}/events",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def read_until(self, beginning: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(beginning):
                return line
        raise AssertionError("\n".join(self.lines[-50:]))

    def interrupt(self) -> int:
        """Ctrl-C: SIGINT to the terminal's whole foreground group."""
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.communicate(timeout=60)
        return self._process.returncode

    def survivors(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self.marker in (f"{k}={v}" for k, v in process.environ().items()):
                    found.append(" ".join(process.cmdline()))
        return found


def test_serve_transcribes_the_samples_and_leaves_no_process_behind() -> None:
    # Not tmp_path, which is too long for the path of a socket.
    with tempfile.TemporaryDirectory(prefix="asr-run-") as directory:
        for _ in range(2):  # The second start finds the first one's data.
            started = Started(Path(directory))
            try:
                started.read_until("Metrics")
                shown = "\n".join(started.lines)
                for sample in self_check.DIGITS:
                    text = sample.with_suffix(".txt").read_text(encoding="utf-8").strip()
                    assert text in shown
                assert f"ws://127.0.0.1:{started.port}/ws/asr" in shown
                url = f"http://127.0.0.1:{started.port}/api/v1/history"
                with urllib.request.urlopen(url) as answer:
                    stored = json.load(answer)["total"]
            finally:
                code = started.interrupt()
            assert code == 0
            assert started.survivors() == []
    assert stored == 2 * len(self_check.DIGITS)
