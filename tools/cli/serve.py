"""``make run``: start everything, wait until it is ready, transcribe the bundled samples as a
self-check, and serve until Ctrl-C or SIGTERM.

A wrong setting or a taken port is one line and a non-zero exit code, before anything starts.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import asr_client as c
from asr_client import audio
from asr_client.client import TOKEN_VARIABLE, authorization
from asr_worker.settings import WorkerSettings
from broker.settings import BrokerSettings
from gateway.settings import GatewaySettings
from gateway.web.auth_tokens import AuthTokens, load_tokens
from persistence.settings import PersistenceSettings
from runtime import exit_codes, lifecycle, settings
from tools.embedded.__main__ import EmbeddedSettings
from tools.ops.stack import ROOT, Stack
from wire.messages import SAMPLE_RATE_HZ

SAMPLES = (ROOT / "tools/samples/digits_zh.wav", ROOT / "tools/samples/digits_en.wav")
SLICE_MS = 100
READY_S_MAX = 600.0
"""A first start may download a model; beyond this it is given up."""
DEGRADED_S_MAX = 10.0
"""Speech is recognised, but the database or Redis is not there: after this it serves without."""
POLL_S = 0.1
HEALTH_ANSWER_S_MAX = 2.0
SELF_CHECK_S_MAX = 60.0
_ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RunError(Exception):
    """Why the system does not run, in one line."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def load_settings() -> tuple[GatewaySettings, WorkerSettings]:
    """Every process's settings, checked before any process starts.

    Raises:
        SystemExit: after one line that names the wrong setting.
    """
    for other in (BrokerSettings, PersistenceSettings, EmbeddedSettings):
        settings.load(other)
    return settings.load(GatewaySettings), settings.load(WorkerSettings)


def check_port(host: str, port: int) -> None:
    """Make sure that nobody serves on ``port``; our own gateways would share it with each other
    (SO_REUSEPORT), and so with those of a system that already runs.

    Raises:
        RunError: if it is taken, or ``host`` is no address of this machine.
    """
    if port == settings.HONCHO_DEFAULT_PORT:
        raise RunError(
            f"PORT {port} is honcho's default and cannot be told from it; choose another",
            exit_codes.CONFIG,
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an earlier run that still linger are nobody's listening socket.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RunError(
                f"cannot serve on {host}:{port}: {error.strerror}; end what uses the port, "
                f"or choose another: PORT={port + 1} make run",
                exit_codes.UNAVAILABLE,
            ) from error


def check_token(tokens: AuthTokens | None) -> str | None:
    """What the self-check shows to the gateway, from the environment; None where all are let in.

    Raises:
        RunError: if it would not be let in.
    """
    if tokens is None:
        return None
    token = os.environ.get(TOKEN_VARIABLE, "")
    if tokens.name_of(token, time.monotonic()) is None:
        raise RunError(
            f"AUTH_TOKENS_FILE is set, so set {TOKEN_VARIABLE} to one of its tokens: the "
            "self-check needs it",
            exit_codes.CONFIG,
        )
    return token


def ask_health(base_url: str, token: str | None = None) -> dict[str, Any] | None:
    """``/api/v1/health``'s body; None as long as no gateway answers."""
    request = urllib.request.Request(f"{base_url}/api/v1/health", headers=authorization(token))
    try:
        with _OPENER.open(request, timeout=HEALTH_ANSWER_S_MAX) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except (OSError, http.client.HTTPException):
        return None
    try:
        health = json.loads(body)
    except ValueError:
        return None
    return health if isinstance(health, dict) else None


def wait_until_ready(
    stack: Stack, base_url: str, stop: lifecycle.StopSignal | None = None, token: str | None = None
) -> dict[str, Any]:
    """Wait for the system to recognise speech, and a little longer for its databases.

    Returns:
        The health answer; an empty one if ``stop`` was requested.

    Raises:
        RunError: if a process ended for good, or it takes too long.
    """
    began_s = time.monotonic()
    recognises_since_s: float | None = None
    waiting = stop or threading.Event()
    while not waiting.wait(POLL_S):
        require_running(stack)
        now_s = time.monotonic()
        health = ask_health(base_url, token) or {}
        if health.get("code") == "unauthorized":
            raise RunError(f"the gateway wants a token: set {TOKEN_VARIABLE}", exit_codes.CONFIG)
        if health.get("status") == "ok":
            return health
        if health.get("status") == "degraded":
            recognises_since_s = recognises_since_s or now_s
            if now_s - recognises_since_s > DEGRADED_S_MAX:
                return health
        elif now_s - began_s > READY_S_MAX:
            reason = health.get("reason") or "the gateway does not answer"
            raise RunError(f"not ready after {READY_S_MAX:.0f} s: {reason}")
    return {}


def require_running(stack: Stack) -> None:
    """Raises RunError if honcho has ended."""
    if stack.exit_code is not None:
        reason = stack.errors[0] if stack.errors else "a process ended; see its last lines above"
        raise RunError(reason, stack.exit_code or 1)


async def hear(url: str, pieces: list[bytes], token: str | None) -> c.FinalResult:
    """The text of the audio in ``pieces``, sent as fast as possible."""
    connecting = c.connect(url, user_id="self-check", token=token)
    async with asyncio.timeout(SELF_CHECK_S_MAX), connecting as session:
        for piece in pieces:
            await session.send(piece)
        await session.finish()
        return await session.final()


def self_check(url: str, model: str, console: Console, token: str | None) -> None:
    """Transcribe the samples and print their texts.

    Raises:
        RunError: if there is none, or the bundled model heard something else than was said.
    """
    for path in SAMPLES:
        duration_s = audio.file_duration_s(path, SAMPLE_RATE_HZ)
        pieces = audio.slices(path.read_bytes(), duration_s, SLICE_MS)
        try:
            final = asyncio.run(hear(url, pieces, token))
        except (c.SessionError, TimeoutError) as error:
            raise RunError(f"self-check: {path.name}: {error or 'no answer in time'}") from error
        said = path.with_suffix(".txt").read_text(encoding="utf-8")
        heard = final.text
        # Other models may write digits as figures, so only the bundled one is held to its text.
        if model == "demo" and heard.split() != said.split():
            raise RunError(f"self-check: {path.name}: said {said.strip()!r}, heard {heard!r}")
        stored = "stored" if final.stored else "not yet stored"
        line = Text(f"{path.relative_to(ROOT)}  ({final.duration_s:.1f} s, {stored})  ")
        console.print(line + Text(heard, style="bold green"), soft_wrap=True)


def show_addresses(host: str, port: int, health: dict[str, Any], console: Console) -> None:
    """Where the system serves, and what it lacks."""
    table = Table.grid(padding=(0, 2))
    for name, address in (
        ("Page", f"http://{host}:{port}/"),
        ("Dashboard", f"http://{host}:{port}/dashboard"),
        ("WebSocket", f"ws://{host}:{port}/ws/asr"),
        ("API", f"http://{host}:{port}/docs"),
        ("Health", f"http://{host}:{port}/api/v1/health"),
        ("Metrics", f"http://{host}:{port}/metrics"),
    ):
        table.add_row(name, Text(address, style="cyan"))
    console.print(table)
    for name, key in (("PostgreSQL", "db_ready"), ("Redis", "redis_ready")):
        if health.get(key) is False:
            console.print(f"{name} does not answer; serving without it.", style="yellow")


def serve(
    stack: Stack,
    values: GatewaySettings,
    model: str,
    stop: lifecycle.StopSignal,
    console: Console,
    token: str | None,
) -> None:
    """From started processes to the last Ctrl-C.

    Raises:
        RunError: if the system does not come up, or ends by itself.
    """
    host = _ANYWHERE.get(values.host, values.host)
    host = f"[{host}]" if ":" in host else host
    began_s = time.monotonic()
    with console.status("Starting …"):
        health = wait_until_ready(stack, f"http://{host}:{values.port}", stop, token)
        if stop.requested:
            return
        ready_s = time.monotonic() - began_s
        self_check(f"ws://{host}:{values.port}/ws/asr", model, console, token)
    console.print(f"Ready after {ready_s:.1f} s, with the model {model}. Ctrl-C ends it.")
    show_addresses(host, values.port, health, console)
    while not stop.wait(POLL_S):
        require_running(stack)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    concurrency: Annotated[
        str, typer.Option("-c", help="As honcho's: gateway=2,asr_worker=2")
    ] = "",
) -> None:
    """Start everything, transcribe the bundled samples, and serve until Ctrl-C."""
    os.chdir(ROOT)
    console = Console(highlight=False)
    stop = lifecycle.StopSignal()
    values, worker_values = load_settings()

    def tell(line: str) -> None:
        try:
            console.print(Text(line, style="dim"), soft_wrap=True)
        except (OSError, SystemExit):  # Nobody reads what we print any more (rich: SystemExit).
            stop.request()

    try:
        token = check_token(load_tokens(values.auth_tokens_file))
        check_port(values.host, values.port)
        stack = Stack(tell, concurrency)
        try:
            serve(stack, values, worker_values.asr_model, stop, console, token)
        finally:
            with console.status("Ending …"):
                stack.stop()
    except RunError as error:
        settings.fail(str(error), error.code)


if __name__ == "__main__":
    app()
