"""Access tokens: every form in which a client can send one is accepted, requests without one are
refused, and no token is logged."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from asr_client import RefusedError, connect
from gateway.web import auth_tokens
from tests.integration.browser import running_browser, screenshot
from tests.integration.dialect_clients import funasr, funasr_start, vosk, vosk_texts
from tests.integration.speech import Spoken, say, spoken
from tests.integration.test_examples import EXAMPLES, SAMPLE, TEXT, node
from tests.tools.client import patient_asr
from tools.lab.encoded_audio import encode
from tools.lab.harness.process import LoggedProcess
from tools.lab.harness.stack import Stack, wait_until

PATHS = ("/ws/asr", "/", "/vosk")
WAIT_MS = 30_000


@dataclass(frozen=True)
class Guarded:
    """A gateway that requires a token, beside the shared one of the same pipeline."""

    stack: Stack
    process: LoggedProcess
    file: Path
    token: str

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.stack.ports['gateway4']}"

    @property
    def with_password(self) -> str:
        """For clients in which only the address can be changed."""
        return f"anybody:{self.token}@{self.address}"

    def get(self, path: str, **headers: str) -> httpx2.Response:
        return httpx2.get(f"http://{self.address}{path}", headers=headers, trust_env=False)

    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def refused(self) -> float:
        """The number of requests refused without a valid token."""
        shown = self.get("/metrics", **self.bearer()).text
        (family,) = [
            family
            for family in text_string_to_metric_families(shown)
            if family.name == "asr_gateway_refused_connections"
        ]
        return sum(s.value for s in family.samples if s.labels.get("code") == "unauthorized")

    def known(self, token: str) -> bool:
        """Whether the gateway lets it in; what the file says counts after it is read again."""
        return self.get("/api/v1/stats", Authorization=f"Bearer {token}").status_code == 200


def allowing(token: str) -> auth_tokens.Access:
    return auth_tokens.Access(digest=auth_tokens.hash_of(token))


@pytest.fixture(scope="module")
def guarded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    file = tmp_path_factory.mktemp("access") / "tokens"
    token = auth_tokens.new_token()
    auth_tokens.write(file, {"anna": allowing(token)})
    process = stack.start("gateway4", AUTH_TOKENS_FILE=str(file), LOG_LEVEL="debug")
    wait_until(lambda: stack.get("/readyz", "gateway4").status == 200, "gateway4 ready")
    yield Guarded(stack, process, file, token)
    del stack.processes["gateway4"]
    assert process.terminate() == 0
    secrets = [token, base64.b64encode(f"anybody:{token}".encode()).decode()[-40:]]
    assert process.lines
    assert not [line for line in process.lines if any(secret in line for secret in secrets)]


def said_by(audio: Spoken) -> bytes:
    return audio.pcm.tobytes()


def test_the_refusal_of_a_large_upload_reaches_a_client_that_sends_all_of_it(
    guarded: Guarded,
) -> None:
    host, _, port = guarded.address.partition(":")
    body = bytes(8_000_000)  # More than the buffers of both sockets hold.
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"{head}Authorization: Bearer wrong\r\n\r\n".encode() + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


async def test_with_a_token_everything_is_as_without(guarded: Guarded) -> None:
    audio = spoken(6_001)
    before = len(guarded.process.events)
    url = f"ws://{guarded.address}/ws/asr"
    session_id, final = await say(url, audio, token=guarded.token)
    assert final.stored
    started = guarded.process.event("session_started", after=before)
    assert (started["session_id"], started["token_name"]) == (session_id, "anna")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("token", [None, "wrong"])
async def test_without_one_no_socket_is_opened(
    guarded: Guarded, path: str, token: str | None
) -> None:
    before = guarded.refused()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with pytest.raises(InvalidStatus) as caught:
        async with connect_socket(f"ws://{guarded.address}{path}", additional_headers=headers):
            pass
    response = caught.value.response
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert json.loads(response.body or b"")["code"] == "unauthorized"
    assert guarded.refused() == before + 1


async def test_the_client_reports_a_missing_token(guarded: Guarded) -> None:
    with pytest.raises(RefusedError, match="a token is required") as caught:
        async with connect(f"ws://{guarded.address}/ws/asr"):
            pass
    assert caught.value.status == 401


def test_open_paths_need_no_token_and_others_do(guarded: Guarded) -> None:
    for path in ("/", "/dashboard", "/docs", "/static/app.js", "/openapi.json", "/livez"):
        assert guarded.get(path).status_code == 200, path
    assert guarded.get("/api/v1/health").json() == {"status": "ready"}
    for path in ("/api/v1/history", "/api/v1/stats", "/v1/models", "/metrics"):
        assert guarded.get(path).status_code == 401, path
        assert guarded.get(path, **guarded.bearer()).status_code == 200, path
    assert guarded.get("/api/v1/history?token=" + guarded.token).status_code == 401


def test_the_body_of_a_refused_request_is_not_waited_for(guarded: Guarded) -> None:
    port = guarded.stack.ports["gateway4"]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
        head = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000"
        stranger.sendall(head + b"\r\n\r\n")
        answer = b""
        while piece := stranger.recv(65_536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "unauthorized"


async def test_as_a_subprotocol_for_browsers(guarded: Guarded) -> None:
    offers = [Subprotocol("asr"), Subprotocol(f"bearer.{guarded.token}")]
    async with connect_socket(f"ws://{guarded.address}/ws/asr", subprotocols=offers) as opened:
        assert opened.subprotocol == "asr"


async def test_as_a_password_for_clients_that_only_have_an_address(guarded: Guarded) -> None:
    audio = spoken(6_002, voice="en_slt")
    view = await funasr(
        f"ws://{guarded.with_password}", said_by(audio), funasr_start("offline"), acknowledged=True
    )
    assert view.text == audio.text
    replies = await vosk(f"ws://{guarded.with_password}/vosk", said_by(audio), 16_000)
    assert " ".join(vosk_texts(replies)) == audio.text


def test_openai_s_client_has_a_key_anyway(guarded: Guarded) -> None:
    def models(key: str) -> list[str]:
        client = openai.OpenAI(api_key=key, base_url=f"http://{guarded.address}/v1", max_retries=0)
        with client:
            return [model.id for model in client.models.list()]

    assert models(guarded.token)
    with pytest.raises(openai.AuthenticationError) as caught:
        models("wrong")
    assert caught.value.code == "unauthorized"


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", patient_asr.MODULE, "transcribe", str(SAMPLE), "--url"],
        [node(), str(EXAMPLES / "stream.mjs"), str(SAMPLE)],
        ["sh", str(EXAMPLES / "files.sh"), str(SAMPLE)],
    ],
    ids=["transcribe", "node", "curl"],
)
def test_tools_and_examples_take_it_from_the_environment(
    guarded: Guarded, command: list[str]
) -> None:
    scheme, path = ("http", "") if command[0] == "sh" else ("ws", "/ws/asr")

    def run(**environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, f"{scheme}://{guarded.address}{path}"],
            cwd=EXAMPLES.parent,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = run(ASR_TOKEN=guarded.token)
    assert done.returncode == 0, done.stderr
    assert TEXT in done.stdout.splitlines()
    assert run(ASR_TOKEN="wrong").returncode != 0


def test_tokens_are_added_and_removed_at_run_time(guarded: Guarded) -> None:
    def tool(*arguments: str) -> str:
        command = [sys.executable, "-m", "tools.cli.auth_tokens", *arguments]
        environment = {**os.environ, "AUTH_TOKENS_FILE": str(guarded.file)}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()

    other = tool("add", "bo")
    wait_until(lambda: guarded.known(other), "the new token is known")
    tool("remove", "bo")
    wait_until(lambda: not guarded.known(other), "the old token is forgotten")
    assert guarded.get("/api/v1/stats", **guarded.bearer()).status_code == 200


# ------------------------------------------------------------------------------------------ pages


@pytest.fixture(scope="module")
def page(guarded: Guarded) -> Iterator[Page]:
    with running_browser() as browser:
        context = browser.new_context(base_url=f"http://{guarded.address}", locale="en-US")
        context.set_default_timeout(WAIT_MS)
        yield context.new_page()


def test_the_page_asks_for_a_token_and_keeps_it(page: Page, guarded: Guarded) -> None:
    audio = spoken(6_003, voice="en_rms", digits=(6, 6))
    page.goto("/")
    dialog = page.get_by_role("dialog", name="Access")
    expect(dialog).to_contain_text("requires a token")
    screenshot(page, "token")
    found = Axe().run(page).response["violations"]
    assert not [v["id"] for v in found if v["impact"] in ("serious", "critical")]
    for wrong in ("wrong", "名"):
        page.get_by_label("Token").fill(wrong)
        page.keyboard.press("Enter")
    expect(dialog).to_contain_text("This token is not valid")
    page.get_by_label("Token").fill(f" {guarded.token} ")
    page.get_by_role("button", name="Continue").click()
    expect(dialog).to_have_count(0)
    page.wait_for_selector("#history[data-loaded]", state="attached")
    file = {"name": "a.wav", "mimeType": "audio/wav", "buffer": encode(audio.pcm, "wav", 16_000, 1)}
    page.set_input_files("#file", file)  # type: ignore[arg-type]
    page.wait_for_selector("body[data-state=done]")
    assert " ".join(page.locator("#lines .line > span").all_text_contents()) == audio.text
    page.goto("/dashboard")
    expect(page.locator("#gateway")).to_contain_text("Gateways shown")
    expect(dialog).to_have_count(0)
    assert guarded.token not in page.url


def test_the_page_asks_again_after_a_token_is_removed(page: Page, guarded: Guarded) -> None:
    """The upgrade is refused, the page asks for the reason, and the session continues with a new
    token."""
    kept = auth_tokens.read(guarded.file)
    other = auth_tokens.new_token()
    auth_tokens.write(guarded.file, {**kept, "bo": allowing(other)})
    wait_until(lambda: guarded.known(other), "the new token is known")
    page.goto("/")
    page.wait_for_selector("#history[data-loaded]", state="attached")
    page.evaluate("sessionStorage.setItem('access-token', 'asr_gone')")
    page.reload()
    page.get_by_label("Token").fill(other)
    page.keyboard.press("Enter")
    page.wait_for_selector("#history[data-loaded]", state="attached")
    auth_tokens.write(guarded.file, kept)
    wait_until(lambda: not guarded.known(other), "the token is forgotten")
    audio = spoken(6_004, voice="en_rms", digits=(6, 6))
    file = {"name": "a.wav", "mimeType": "audio/wav", "buffer": encode(audio.pcm, "wav", 16_000, 1)}
    page.set_input_files("#file", file)  # type: ignore[arg-type]
    page.get_by_label("Token").fill(guarded.token)
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-state=done]")
    assert " ".join(page.locator("#lines .line > span").all_text_contents()) == audio.text


def test_the_page_reports_a_missing_token(page: Page) -> None:
    page.evaluate("sessionStorage.clear()")
    for path, place in (("/", "#history-note"), ("/dashboard", "#stale")):
        page.goto(path)
        page.get_by_role("dialog", name="Access").wait_for()
        page.keyboard.press("Escape")
        expect(page.locator(place)).to_contain_text("The server requires a token.")
        expect(page.get_by_role("dialog")).to_have_count(0)
    page.goto("/docs")
    page.wait_for_selector("#operations .opblock")
    expect(page.get_by_role("dialog")).to_have_count(0)
