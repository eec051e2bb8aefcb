"""TLS by certificate files with real clients: versions, a changed certificate, sessions over it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from gateway.web.certificates import CHECK_EVERY_S
from tests.gateway.web.test_certificates import Files, write_certificate
from tests.integration.speech import chunks_of, say, spoken
from tests.integration.test_tenants import exchange
from tests.tools.client import patient_asr
from tools.cli.serve import get_health, trusting
from tools.lab.encoded_audio import encode
from tools.lab.harness.process import ROOT, LoggedProcess
from tools.lab.harness.stack import Stack, wait_until


@dataclass(frozen=True)
class Secure:
    """A gateway with TLS."""

    port: int
    files: Files
    process: LoggedProcess

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.port}/ws/asr"

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.files.certificate)

    def version_with(self, context: ssl.SSLContext) -> str | None:
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return secure.version()

    def name(self) -> str:
        """That of the certificate which a new connection gets."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.port))
        return "same" if pem.strip() == self.files.certificate.read_text().strip() else "another"


@pytest.fixture(scope="module")
def secure(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    files = write_certificate(tmp_path_factory.mktemp("tls"), "first")
    process = stack.start(
        "gateway10", TLS_CERT_FILE=str(files.certificate), TLS_KEY_FILE=str(files.key)
    )
    port = stack.ports["gateway10"]
    base_url = f"https://127.0.0.1:{port}"

    def ready() -> bool:
        health = get_health(base_url, tls=trusting(files.certificate))
        return health.get("status") == "ready"

    wait_until(ready, "gateway10 ready")
    yield Secure(port, files, process)
    del stack.processes["gateway10"]
    assert process.terminate() == 0


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_1_2_and_1_3_are_spoken_and_nothing_older(secure: Secure) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = secure.context()
        context.minimum_version = context.maximum_version = version
        assert secure.version_with(context) == version.name.replace("_", ".")
    context = secure.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        secure.version_with(context)


def test_plain_http_is_not_served(secure: Secure) -> None:
    with socket.create_connection(("127.0.0.1", secure.port), timeout=30) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
    assert b"HTTP" not in answer


def test_asr_transcribe_and_history_work_with_https(secure: Secure, tmp_path: Path) -> None:
    audio = tmp_path / "speech.wav"
    said = spoken(7_301)
    audio.write_bytes(encode(said.pcm, "wav", 16_000, 1))
    address = f"https://localhost:{secure.port}"
    for command, found in (
        (["transcribe", str(audio)], said.text),
        (["history", "list"], "completed"),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", patient_asr.MODULE, *command],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            env={
                **os.environ,
                "ASR_URL": address,
                "SSL_CERT_FILE": str(secure.files.certificate),
            },
        )
        assert ran.returncode == 0, ran.stderr
        assert found in ran.stdout


def test_a_session_over_a_change_of_the_certificate_keeps_its_text(secure: Secure) -> None:
    said = spoken(7_302)
    old = secure.context()
    chunks = chunks_of(said, "raw", "", 16_000, 1, 200)
    with connect(secure.url, ssl=old, proxy=None) as client:
        exchange(client, {"action": "start", "session_id": "tls-change"})
        before = len(secure.process.events)
        for chunk in chunks[: len(chunks) // 2]:
            client.send(chunk)
        assert secure.name() == "same"
        write_certificate(secure.files.certificate.parent, "second")
        secure.process.event("certificate_read", after=before, timeout_s=30 + CHECK_EVERY_S)
        assert secure.name() == "same", "the new one"
        for chunk in chunks[len(chunks) // 2 :]:
            client.send(chunk)
        client.send(json.dumps({"action": "finish", "session_id": "tls-change"}))
        final: dict[str, Any] = {}
        while final.get("type") != "final_result":
            final = json.loads(client.recv(timeout=60))
        assert final["text"] == said.text
    with pytest.raises(ssl.SSLCertVerificationError):
        secure.version_with(old)
    asyncio.run(say(secure.url, spoken(7_303), tls=secure.context()))
