"""A scripted gateway, against which the checks of the load generator are tested."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from tools.lab.loadtest.driver import Driver
from tools.lab.loadtest.speech import DigitSpeech
from tools.lab.loadtest.user import Behaviour, Outcome


@dataclass
class Gateway:
    """Sends ``texts`` as segments after finish, whatever audio it received."""

    texts: list[str]
    refusals: int = 0
    refusal_status: HTTPStatus = HTTPStatus.SERVICE_UNAVAILABLE
    cut_after_chunks: int | None = None
    """The first connection is closed after this many chunks; the next one resumes there."""
    close_code: int = 1012
    silent: bool = False
    """Finish is never answered."""
    segment_indices: list[int] | None = None
    final_text: str | None = None
    starts: list[dict[str, Any]] = field(default_factory=list)
    audio: list[bytes] = field(default_factory=list)
    upgrades: int = 0

    def admit(self, socket: ServerConnection, _request: Request) -> Response | None:
        self.upgrades += 1
        if self.upgrades > self.refusals:
            return None
        response = socket.respond(self.refusal_status, "{}")
        response.headers["Retry-After"] = "0"
        return response

    async def serve(self, socket: ServerConnection) -> None:
        asked = json.loads(await socket.recv())
        self.starts.append(asked)
        resumed = "resume_token" in asked
        index = len(self.audio)
        await _send(
            socket,
            type="ack",
            status="session_resumed" if resumed else "session_started",
            session_id=asked["session_id"],
            resume_token="token",
            next_chunk_index=index,
        )
        async for message in socket:
            if isinstance(message, bytes):
                self.audio.append(message)
                await _send(socket, type="ack", status="received", chunk_index=index)
                index += 1
                if asked["partials"]:
                    await _send(socket, type="partial_result", segment_index=0, text="o")
                if index == self.cut_after_chunks and not resumed:
                    await socket.close(self.close_code)
            elif not self.silent:
                await self._conclude(socket)

    async def _conclude(self, socket: ServerConnection) -> None:
        indices = self.segment_indices or list(range(len(self.texts)))
        for index, text in zip(indices, self.texts, strict=True):
            await _send(
                socket,
                type="chunk_result",
                segment_index=index,
                chunk_index=0,
                start_ms=0,
                end_ms=99_000,
                text=text,
            )
        await _send(
            socket,
            type="final_result",
            text=self.final_text or " ".join(dict.fromkeys(self.texts)),
            duration=1.0,
            chunk_count=len(self.audio),
            stored=True,
        )


async def _send(socket: ServerConnection, **fields: Any) -> None:
    await socket.send(json.dumps(fields))


@contextlib.asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[str]:
    async with serve(gateway.serve, "127.0.0.1", 0, process_request=gateway.admit) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws/asr"


SPEECH_MS = 3_000
CHUNK_MS = 100


def speech() -> DigitSpeech:
    """English, so that texts have words, and not all of them alike."""
    found = (DigitSpeech(seed, SPEECH_MS, CHUNK_MS) for seed in range(99))
    return next(speech for speech in found if len(set(speech.text.split())) > 2)


async def one_session(url: str, **behaviour: Any) -> Outcome:
    """A fast session with ``speech()``."""
    settings: dict[str, Any] = {
        "mode": "auto",
        "binary": True,
        "partials": False,
        "resume": True,
        "speed": 50.0,
        "patience_s": 10.0,
        "final_timeout_s": 10.0,
        **behaviour,
    }
    driver = Driver([("s", 0.0, speech)], Behaviour(url=url, **settings), began_s=time.monotonic())
    async with asyncio.timeout(30):
        (outcome,) = await driver.run()
    return outcome
