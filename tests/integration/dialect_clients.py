"""Clients of other protocols that send, wait and show text as their public clients do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection

from tests.integration.admitted import open_socket
from tests.integration.speech import slices

REPLY_TIMEOUT_S = 60.0
FUNASR_FRAME_BYTES = 1_920
VOSK_FRAME_S = 0.2

Reply = dict[str, Any]


@dataclass
class FunasrView:
    """Handles each reply as FunASR's Python client does."""

    replies: list[Reply] = field(default_factory=list)
    text: str = ""
    sentences: str = ""

    def take(self, message: str | bytes) -> Reply:
        reply: Reply = json.loads(message)
        self.replies.append(reply)
        text = reply["text"]  # older clients fail without
        if reply["mode"] in ("online", "offline") or reply["mode"] == "2pass-online":
            self.text += text
        else:
            self.sentences += text
            self.text = self.sentences
        return reply


def funasr_start(mode: str | None, **more: Any) -> Reply:
    """The Python client's start; a field that is None is left out."""
    fields = {
        "mode": mode,
        "chunk_size": [5, 10, 5],
        "chunk_interval": 10,
        "encoder_chunk_look_back": 4,
        "decoder_chunk_look_back": 0,
        "audio_fs": 16_000,
        "wav_name": "demo",
        "wav_format": "pcm",
        "is_speaking": True,
        "hotwords": "",
        "itn": False,
        **more,
    }
    return {name: value for name, value in fields.items() if value is not None}


async def funasr(
    url: str,
    audio: bytes,
    start: Reply,
    *,
    acknowledged: bool = True,
    pace_s: float = 0.0,
) -> FunasrView:
    """Send one recording; end it as the current client (``acknowledged``) or older ones do."""
    view = FunasrView()
    async with open_socket(url, subprotocols=["binary"], ping_interval=None) as socket:
        await socket.send(json.dumps(start))
        receiving = asyncio.create_task(_until_last(socket, view, acknowledged))
        await _send_frames(socket, audio, FUNASR_FRAME_BYTES, pace_s)
        end = {"is_speaking": False, "is_end": True} if acknowledged else {"is_speaking": False}
        await socket.send(json.dumps(end))
        await asyncio.wait_for(receiving, REPLY_TIMEOUT_S)
    return view


async def _until_last(socket: ClientConnection, view: FunasrView, acknowledged: bool) -> None:
    async for message in socket:
        reply = view.take(message)
        if reply.get("is_end") if acknowledged else reply["is_final"]:
            return


async def _send_frames(socket: ClientConnection, audio: bytes, size: int, pace_s: float) -> None:
    for frame in slices(audio, size):
        await socket.send(frame)
        await asyncio.sleep(pace_s)


async def funasr_files(
    url: str, recordings: list[tuple[str, bytes]], *, waits: bool
) -> list[Reply]:
    """The C++ client: file after file over one socket, the next as soon as there is a reply, or
    without waiting for it."""
    replies: list[Reply] = []
    async with open_socket(url, ping_interval=None) as socket:
        for name, audio in recordings:
            start = funasr_start(None, wav_name=name, svs_itn=False)
            await socket.send(json.dumps(start))
            for block in slices(audio, 204_800):
                await socket.send(block)
            await socket.send('{"is_speaking":false}')
            if waits:
                replies.append(json.loads(await asyncio.wait_for(socket.recv(), REPLY_TIMEOUT_S)))
        while len(replies) < len(recordings):
            replies.append(json.loads(await asyncio.wait_for(socket.recv(), REPLY_TIMEOUT_S)))
    return replies


async def vosk(
    url: str, pcm: bytes, sample_rate_hz: int | None, *, pace_s: float = 0.0, **config: Any
) -> list[Reply]:
    """vosk-server's test clients: each message waits for its one reply. With no rate, no config."""
    replies: list[Reply] = []

    async def ask(message: str | bytes) -> None:
        await socket.send(message)
        replies.append(json.loads(await asyncio.wait_for(socket.recv(), REPLY_TIMEOUT_S)))

    async with open_socket(url) as socket:
        if sample_rate_hz is not None:
            fields = {"sample_rate": sample_rate_hz, **config}
            await socket.send('{ "config" : %s }' % json.dumps(fields))  # noqa: UP031
        for frame in slices(pcm, int((sample_rate_hz or 8_000) * VOSK_FRAME_S) * 2):
            await ask(frame)
            await asyncio.sleep(pace_s)
        await ask('{"eof" : 1}')
        await asyncio.wait_for(socket.wait_closed(), REPLY_TIMEOUT_S)
    return replies


def vosk_texts(replies: list[Reply]) -> list[str]:
    """The final texts, in order."""
    return [reply["text"] for reply in replies if reply.get("text")]
