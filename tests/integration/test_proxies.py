"""HTTP/1.1 and WebSockets through the proxies of ``deploy/``, with TLS in the proxy."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.gateway.web.test_certificates import Files, write_certificate
from tests.integration.speech import chunks_of, say, spoken
from tests.integration.test_tenants import exchange
from tools.lab.encoded_audio import encode
from tools.lab.harness.ports import free_port
from tools.lab.harness.process import LoggedProcess
from tools.lab.harness.stack import Stack, wait_until

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CLIENT_ADDRESS = "127.0.0.2"
"""Not that of the proxy, and not trusted."""


@dataclass(frozen=True)
class Proxied:
    """A gateway behind a proxy."""

    gateway: LoggedProcess
    port: int
    context: ssl.SSLContext

    def ask(self, path: str, method: str = "GET", **more: object) -> httpx2.Response:
        with httpx2.Client(verify=self.context, trust_env=False, timeout=60) as client:
            return client.request(method, f"https://localhost:{self.port}{path}", **more)  # type: ignore[arg-type]


def with_ports(config: Path, replaced: dict[str, str]) -> str:
    text = config.read_text(encoding="utf-8")
    for old, new in replaced.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def nginx(folder: Path, files: Files, port: int, gateway: int) -> list[str]:
    """Write its configuration, and return its command."""
    site = with_ports(
        DEPLOY / "nginx/asr.conf",
        {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "127.0.0.1:8080": f"127.0.0.1:{gateway}",
            "/etc/nginx/asr.pem": str(files.certificate),
            "/etc/nginx/asr.key": str(files.key),
        },
    )
    (folder / "asr.conf").write_text(site, encoding="utf-8")
    paths = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = (
        f"user root; pid {folder}/nginx.pid; daemon off; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} include {folder}/asr.conf; }}\n"
    )
    (folder / "nginx.conf").write_text(main, encoding="utf-8")
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def haproxy(folder: Path, files: Files, port: int, gateway: int) -> list[str]:
    both = folder / "both.pem"
    both.write_text(files.certificate.read_text() + files.key.read_text(), encoding="utf-8")
    config = with_ports(
        DEPLOY / "haproxy/haproxy.cfg",
        {
            "bind :443": f"bind 127.0.0.1:{port}",
            "127.0.0.1:8080": f"127.0.0.1:{gateway}",
            "/etc/haproxy/asr.pem": str(both),
        },
    )
    (folder / "haproxy.cfg").write_text(config, encoding="utf-8")
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


@pytest.fixture(scope="module", params=[nginx, haproxy], ids=["nginx", "haproxy"])
def proxied(
    request: pytest.FixtureRequest, stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    name = request.param.__name__
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp(name)
    files, port = write_certificate(folder, name), free_port()
    gateway = stack.start("gateway11")
    wait_until(lambda: stack.get("/readyz", "gateway11").status == 200, "gateway11 ready")
    command = request.param(folder, files, port, stack.ports["gateway11"])
    context = ssl.create_default_context(cafile=files.certificate)
    through = Proxied(gateway, port, context)
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as proxy:

        def answers() -> bool:
            assert proxy.poll() is None, (folder / "log").read_text()
            try:
                return through.ask("/readyz").status_code == 200
            except httpx2.TransportError:
                return False

        try:
            wait_until(answers, f"an answer through {name}")
            yield through
        finally:
            proxy.terminate()
            del stack.processes["gateway11"]
            assert gateway.terminate() == 0


async def test_the_client_transcribes_through_it(proxied: Proxied) -> None:
    def is_ready() -> bool:
        return bool(proxied.ask("/api/v1/health").json()["status"] == "ready")

    await asyncio.to_thread(wait_until, is_ready, "all parts answer")
    url = f"wss://localhost:{proxied.port}/ws/asr"
    _, final = await say(url, spoken(7_401), tls=proxied.context)
    assert final.stored


def test_a_file_of_megabytes_is_uploaded_through_it(proxied: Proxied) -> None:
    said = spoken(7_402)
    silence = bytes(32_000 * 60)
    file = encode(said.pcm, "wav", 16_000, 1) + silence
    answer = proxied.ask(
        "/v1/audio/transcriptions",
        "POST",
        files={"file": ("a.wav", file)},
        data={"model": "whisper-1", "stream": "true"},
    )
    assert answer.status_code == 200, answer.text
    last = [line for line in answer.text.splitlines() if line.startswith("data: {")][-1]
    assert json.loads(last.removeprefix("data: "))["text"] == said.text


def test_the_address_is_the_client_s_whatever_it_claims(proxied: Proxied) -> None:
    before = len(proxied.gateway.events)
    session_id = f"proxied-{proxied.port}"
    with connect(
        f"wss://localhost:{proxied.port}/ws/asr",
        ssl=proxied.context,
        proxy=None,
        additional_headers={"X-Forwarded-For": "203.0.113.9"},
        origin=Origin(f"https://localhost:{proxied.port}"),
        source_address=(CLIENT_ADDRESS, 0),
    ) as client:
        exchange(client, {"action": "start", "session_id": session_id})
        for chunk in chunks_of(spoken(7_403), "raw", "", 16_000, 1, 1_000):
            client.send(chunk)
        client.send(json.dumps({"action": "finish", "session_id": session_id}))
        while json.loads(client.recv(timeout=60)).get("type") != "final_result":
            continue
    ended = proxied.gateway.event(
        "session_ended", after=before, where=lambda event: event["session_id"] == session_id
    )
    assert ended["client"] == CLIENT_ADDRESS
