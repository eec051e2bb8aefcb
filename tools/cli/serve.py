"""``asr serve`` and ``make run``: start a complete system on this machine.

The command pulls the models that are not on this machine, starts the processes of the Procfile,
waits until they recognise speech, transcribes bundled recordings as a self-check, and serves until
Ctrl-C or SIGTERM. A wrong setting or a port in use is reported in one line before any process
starts.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from honcho import environ
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from asr_client.addresses import websocket_url
from asr_client.client import TOKEN_VARIABLE, authorization
from asr_worker.model_files.catalogue import DEFAULT_MODEL
from asr_worker.settings import WorkerSettings
from broker.settings import BrokerSettings
from gateway.settings import GatewaySettings
from gateway.web.auth_tokens import AuthTokens, load_tokens
from gateway.web.certificates import load_certificates
from gateway.web.jwt_tokens import is_jwt
from persistence.settings import PersistenceSettings
from runtime import exit_codes, lifecycle, settings
from tools.cli import self_check
from tools.embedded.__main__ import EmbeddedSettings
from tools.embedded.directory import DataDirectory
from tools.ops.procfile import ROOT, Honcho, without_prefix

FALLBACK_MODEL = "demo"
READY_S_MAX = 600.0
"""Limit on the start, which includes the loading of a model."""
DEGRADED_S_MAX = 10.0
"""Longest wait for PostgreSQL and Redis once speech is recognised; then serve without them."""
POLL_S = 0.1
HEALTH_TIMEOUT_S = 2.0
_ENV_LINE = re.compile(r"\s*(\w+\s*=|#|$)")
"""honcho ignores other lines."""
_LOOPBACK_OF = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Address on which a server that listens on all addresses is reached from this machine."""


class ServeError(Exception):
    """The system cannot be started, or has stopped. The message is one line; empty if the reason
    has been printed."""

    def __init__(self, message: str, code: int = exit_codes.FAILURE) -> None:
        super().__init__(message)
        self.code = code


# ---------------------------------------------------------------------------- before the processes


def read_env_file(path: Path) -> None:
    """Take the settings that the environment does not have from a file in the form of honcho's.

    Raises:
        SystemExit: After one line on standard error, if the file cannot be read, or a line is no
            setting. The message does not quote the line, which may hold a password.
    """
    values: dict[str, str] = {}
    place = str(path)
    try:
        for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
            place = f"{path}, line {number}"
            if not _ENV_LINE.match(line):
                raise ValueError("a line must be NAME=VALUE or a comment")
            values |= environ.parse(line)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        settings.fail(f"cannot read {place}: {error}", exit_codes.CONFIG)
    for name, value in values.items():
        if not os.environ.get(name, "").strip():
            os.environ[name] = value


def load_settings() -> tuple[GatewaySettings, WorkerSettings]:
    """Check the settings of all processes. honcho reads ``PORT``, too, and takes digits only: the
    environment gets it in this form.

    Raises:
        SystemExit: After one line on standard error that names the wrong setting.
    """
    for other in (BrokerSettings, PersistenceSettings, EmbeddedSettings):
        settings.load(other)
    values = settings.load(GatewaySettings)
    if "PORT" in os.environ:
        os.environ["PORT"] = str(values.port)
    return values, settings.load(WorkerSettings)


def check_port(host: str, port: int) -> None:
    """Check that no server listens on ``port``. Gateways would share it (SO_REUSEPORT), also with
    those of another system.

    Raises:
        ServeError: If the port is in use, or ``host`` is not an address of this machine.
    """
    if port == settings.HONCHO_DEFAULT_PORT:
        raise ServeError(
            f"PORT must not be {port}: honcho sets it by default",
            exit_codes.CONFIG,
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an earlier run in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                advice = "HOST must be an address or a name of this machine"
            elif error.errno == errno.EACCES:
                advice = "ports below 1024 are reserved for privileged users: choose a higher PORT"
            else:
                advice = (
                    "stop the program that uses the port, or choose another one: "
                    f"{other_command(port)}"
                )
            raise ServeError(
                f"cannot serve on {host}:{port}: {error.strerror}; {advice}",
                exit_codes.UNAVAILABLE,
            ) from error


def other_command(port: int) -> str:
    """The command that starts this system beside the one that uses ``port``. It names each setting
    that both would share."""
    changes = [f"PORT={port + 1}"]
    data_dir = settings.load(EmbeddedSettings).data_dir
    if DataDirectory(data_dir).holder() is not None:
        changes.append(f"DATA_DIR={data_dir}-{port + 1}")
    endpoints = ("BROKER_FRONTEND", "BROKER_BACKEND", "BROKER_EVENTS")
    changes += [f"{name}=" for name in endpoints if os.environ.get(name)]
    return f"{' '.join(changes)} make run"


def check_data_dir(values: GatewaySettings) -> None:
    """Check that no other system runs on ``DATA_DIR``.

    Raises:
        ServeError: If one does.
    """
    holder = DataDirectory(values.data_dir).holder()
    if holder is not None:
        raise ServeError(
            f"another system runs on DATA_DIR {values.data_dir} (pid {holder}); stop it, or choose "
            f"another directory: PORT={values.port} DATA_DIR={values.data_dir}-{values.port} "
            "make run",
            exit_codes.UNAVAILABLE,
        )


def check_token(tokens: AuthTokens | None, *, has_provider: bool) -> str | None:
    """Return the token of the self-check; ``None`` if the gateway requires none.

    Raises:
        ServeError: If the gateway would refuse it.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    try:
        authorization(token)  # The self-check sends it in a header.
    except ValueError as error:
        raise ServeError(f"{TOKEN_VARIABLE}: {error}", exit_codes.CONFIG) from error
    if has_provider and is_jwt(token):
        return token  # The gateway checks it.
    if tokens is None:
        if not has_provider:
            return None
        raise ServeError(
            f"JWT_KEYS_URL is set: set {TOKEN_VARIABLE} to a token of the provider, for the "
            "self-check",
            exit_codes.CONFIG,
        )
    found = tokens.find(token, time.monotonic())
    if found is None or found[1].expired(datetime.now(UTC)):
        raise ServeError(
            f"AUTH_TOKENS_FILE is set: set {TOKEN_VARIABLE} to one of its tokens, for the "
            "self-check (asr token add NAME creates one)",
            exit_codes.CONFIG,
        )
    return token


# ---------------------------------------------------------------------------------------- models


def pull_models(values: WorkerSettings, stop: lifecycle.StopSignal, console: Console) -> list[str]:
    """Pull the models that are not on this machine, in a process of its own, which shows progress
    and whose imports do not stay in this one.

    Returns:
        The models to serve: those of the settings. If these name none and no source of the default
        answers, the bundled one. Meaningless if ``stop`` was requested.

    Raises:
        ServeError: If a requested model cannot be fetched. The reason has been printed.
    """
    served = list(values.served_models.values())
    cache = values.model_cache()
    missing = [name for name in values.named_models() if cache.find(name) is None]
    if not missing:
        return served
    console.print(f"Pulling {', '.join(missing)} into {cache.root}", soft_wrap=True)
    command = [sys.executable, "-m", "tools.cli.models", "pull", "--quiet", *missing]
    puller = subprocess.Popen(command, preexec_fn=lifecycle.die_with_parent)
    while (code := puller.poll()) is None:
        if stop.wait(POLL_S):
            puller.terminate()
            puller.wait()
            return served
    if code == exit_codes.OK:
        return served
    is_default = not {"asr_model", "asr_models"} & values.model_fields_set
    if not (is_default and missing == served and code == exit_codes.UNAVAILABLE):
        raise ServeError("", code if code > 0 else exit_codes.FAILURE)
    console.print(
        f"No source of {DEFAULT_MODEL} answers: serving the bundled model, which recognises spoken "
        "digits only.",
        style="yellow",
        soft_wrap=True,
    )
    return [FALLBACK_MODEL]


# ------------------------------------------------------------------------------------- readiness


def trusting(certificate: Path | None) -> ssl.SSLContext | None:
    """Trust the gateway's own certificate, under whatever name it is reached."""
    if certificate is None:
        return None
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def get_health(
    base_url: str, token: str | None = None, tls: ssl.SSLContext | None = None
) -> dict[str, Any]:
    """Return the answer of ``/api/v1/health``; an empty one if no gateway answers."""
    request = urllib.request.Request(f"{base_url}/api/v1/health", headers=authorization(token))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls)
    )
    try:
        with opener.open(request, timeout=HEALTH_TIMEOUT_S) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except (OSError, http.client.HTTPException):
        return {}
    try:
        health = json.loads(body)
    except ValueError:
        return {}
    return health if isinstance(health, dict) else {}


def require_running(honcho: Honcho) -> None:
    """Raise ``ServeError`` if a process has ended for good."""
    if honcho.exit_code is not None:
        reason = honcho.errors[0] if honcho.errors else "a process ended; its last lines are above"
        raise ServeError(reason, honcho.exit_code or exit_codes.FAILURE)


def wait_until_ready(
    honcho: Honcho,
    base_url: str,
    stop: lifecycle.StopSignal,
    status: Status,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> dict[str, Any]:
    """Wait until the system recognises speech, and a little longer for its databases. ``status``
    shows the missing parts.

    Returns:
        The health answer; an empty one if ``stop`` was requested.

    Raises:
        ServeError: If a process has ended for good, or ``READY_S_MAX`` is over.
    """
    began_s = time.monotonic()
    degraded_since_s: float | None = None
    while not stop.wait(POLL_S):
        require_running(honcho)
        waited_s = time.monotonic() - began_s
        health = get_health(base_url, token, tls)
        if health.get("code") == "unauthorized":
            message = f"the gateway requires a token: set {TOKEN_VARIABLE}"
            raise ServeError(message, exit_codes.CONFIG)
        if health.get("status") == "ready":
            return health
        reason = health.get("reason") or "the gateway does not answer yet"
        status.update(f"Starting, {waited_s:.0f} s: {reason}")
        if health.get("status") == "degraded":
            degraded_since_s = waited_s if degraded_since_s is None else degraded_since_s
            if waited_s - degraded_since_s > DEGRADED_S_MAX:
                return health
        elif waited_s > READY_S_MAX:
            raise ServeError(f"not ready after {READY_S_MAX:.0f} s: {reason}; see the lines above")
    return {}


# ------------------------------------------------------------------------------------- self-check


def check(
    url: str,
    models: list[str],
    stop: lifecycle.StopSignal,
    console: Console,
    token: str | None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Transcribe the recordings one after the other, and print their texts.

    Raises:
        ServeError: If one cannot be transcribed, or if the bundled or the default model recognises
            none of them. For other models the expected texts are unknown.
    """
    heard = []
    for path in self_check.recordings_for(models):
        # The session's language selects one of several models.
        language = path.stem[-2:] if len(models) > 1 else None
        try:
            found = self_check.hear(path, url, token, language, stop.wait, tls)
        except self_check.SelfCheckError as error:
            raise ServeError(str(error)) from error
        if found is None:
            return
        heard.append(found)
        stored = "stored" if found.stored else "not yet stored"
        line = Text(f"{path.relative_to(ROOT)}  ({found.duration_s:.1f} s, {stored})  ")
        style = "bold green" if found.is_recognised else "yellow"
        console.print(line + Text(found.text, style=style), soft_wrap=True)
    if any(found.is_recognised for found in heard):
        return
    expected = "; ".join(f"{found.path.name}: {found.expected!r}" for found in heard)
    message = f"self-check: none of the recordings is recognised; expected {expected}"
    if {FALLBACK_MODEL, DEFAULT_MODEL} & set(models):
        raise ServeError(message)
    console.print(message, style="yellow", markup=False, soft_wrap=True)


def address_for_others(host: str) -> str | None:
    """Return the address under which other hosts reach a server that listens on ``host``; None if
    it serves this machine only, or the machine has no route to others."""
    if host not in _LOOPBACK_OF:
        return None
    peers = [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")]
    for family, peer in peers if ":" in host else peers[:1]:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, 9))  # Sends nothing: the kernel chooses the address of the route.
            address: str = probe.getsockname()[0]
            return address
    return None


def url_of(values: GatewaySettings, host: str) -> str:
    return f"{values.scheme}://{f'[{host}]' if ':' in host else host}:{values.port}"


def show_addresses(
    base_url: str, health: dict[str, Any], console: Console, url_for_others: str | None = None
) -> None:
    """Print where the system serves, and which database is missing."""
    table = Table.grid(padding=(0, 2))
    others = [("Other hosts", f"{url_for_others}/")] if url_for_others else []
    for name, address in (
        ("Page", f"{base_url}/"),
        *others,
        ("Dashboard", f"{base_url}/dashboard"),
        ("WebSocket", websocket_url(base_url)),
        ("API", f"{base_url}/docs"),
        ("Health", f"{base_url}/api/v1/health"),
        ("Metrics", f"{base_url}/metrics"),
        ("Command", f"asr transcribe --url {base_url} FILE"),
    ):
        table.add_row(name, Text(address, style="cyan"))
    console.print(table)
    for name, key in (("PostgreSQL", "db_ready"), ("Redis", "redis_ready")):
        if health.get(key) is False:
            console.print(f"{name} does not answer; serving without it.", style="yellow")


def serve(
    honcho: Honcho,
    values: GatewaySettings,
    models: list[str],
    stop: lifecycle.StopSignal,
    console: Console,
    token: str | None,
) -> None:
    """Wait for the processes, check and announce the system, and return when ``stop`` is requested.

    Raises:
        ServeError: If the system does not become ready, or a process ends for good.
    """
    base_url = url_of(values, _LOOPBACK_OF.get(values.host, values.host))
    tls = trusting(values.tls_cert_file)
    began_s = time.monotonic()
    with console.status("Starting") as status:
        health = wait_until_ready(honcho, base_url, stop, status, token, tls)
        if stop.requested:
            return
        ready_s = time.monotonic() - began_s
        status.update("Transcribing the samples")
        check(base_url, models, stop, console, token, tls)
        if stop.requested:
            return
    console.print(f"Ready after {ready_s:.1f} s with {', '.join(models)}. Press Ctrl-C to stop.")
    others = address_for_others(values.host)
    show_addresses(base_url, health, console, url_of(values, others) if others else None)
    while not stop.wait(POLL_S):
        require_running(honcho)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    concurrency: Annotated[
        str, typer.Option("-c", help="Processes of each kind, such as gateway=2,broker=1.")
    ] = "",
) -> None:
    """Start a complete system on this machine, and serve until Ctrl-C.

    Settings are environment variables, or lines of .env (docs/settings.md).

    \b
    Examples:
      asr serve
      PORT=8081 asr serve -c gateway=2
      ASR_MODEL=paraformer-zh ASR_PUNC_MODEL=ct-punc asr serve
    """
    os.chdir(ROOT)
    console = Console(highlight=False)
    stop = lifecycle.StopSignal()
    read_env_file(ROOT / ".env")
    values, worker_values = load_settings()

    def show(line: str) -> None:
        shown = line if console.is_terminal else without_prefix(line)
        try:
            console.print(Text(shown, style="dim"), soft_wrap=True)
        except (OSError, SystemExit):  # Standard output is closed; rich raises SystemExit then.
            stop.request()

    try:
        token = check_token(
            load_tokens(values.auth_tokens_file), has_provider=bool(values.jwt_keys_url)
        )
        load_certificates(values.tls_cert_file, values.tls_key_file)
        check_port(values.host, values.port)
        check_data_dir(values)
        models = pull_models(worker_values, stop, console)
        if stop.requested:
            return
        changed = {"ASR_MODEL": FALLBACK_MODEL} if models == [FALLBACK_MODEL] else {}
        if values.log_format == "auto":
            # The processes write to honcho, and cannot know that this process shows their lines.
            changed["LOG_FORMAT"] = "console" if console.is_terminal else "json"
        honcho = Honcho(show, concurrency, environment=changed)
        try:
            serve(honcho, values, models, stop, console, token)
        finally:
            with console.status("Stopping"):
                honcho.stop()
    except ServeError as error:
        if not str(error):
            raise typer.Exit(error.code) from error
        settings.fail(str(error), error.code)


if __name__ == "__main__":
    app()
