"""``python -m tools.lab.product_accuracy --audio DIR``: errors on recordings, by the client used.

The recordings, ``refs.json`` and the comparison are those of ``tools.lab.accuracy``. Here each
recording goes through a whole system, as ``make run`` starts one: speech detection, broker, worker
and storage included. Ways in: the client of this repository with a file (``native``), a
stream in real time by FunASR's protocol in mode 2pass (``funasr``), an upload by OpenAI's client
(``openai``), and the page in Chromium, whose microphone plays the recording (``page``).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tempfile
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import openai
import typer
from playwright.sync_api import Page
from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

import asr_client
from asr_worker.model_files.catalogue import DEFAULT_MODEL
from tools.lab.accuracy import (
    Clip,
    Measurement,
    Texts,
    error_text,
    invention_text,
    measure,
    read,
    units,
)
from tools.lab.harness import chromium
from tools.lab.harness.stack import supervised_stack
from wire.messages import BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, pcm_duration_ms

ERRORS_MAX = {"en": 0.05, "zh": 0.20}
"""Promised for the default model: share of words, for Mandarin of characters."""
REPLY_S_MAX = 120.0
FRAME_MS = 60
"""Of FunASR's own client."""
PAGE_LEAD_MS = 3_000
"""Silence before a recording: people speak when the page has the microphone, and on a busy machine
that takes longer."""
PAGE_TAIL_MS = 1_500
"""Time for which the microphone stays open after a recording: people press Stop when they have
ended."""

Hear = Callable[[Clip], str]


# ------------------------------------------------------------------------------------ the ways in


@contextlib.contextmanager
def native(base_url: str) -> Iterator[Hear]:
    """A file by the client of this repository."""

    def hear(clip: Clip) -> str:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            file.write(wav(clip.pcm))
            file.flush()
            return asr_client.transcribe(file.name, base_url, timeout_s=REPLY_S_MAX).text

    yield hear


@contextlib.contextmanager
def funasr(base_url: str) -> Iterator[Hear]:
    """A stream in real time, as FunASR's client sends it in mode 2pass."""
    url = base_url.replace("http", "ws", 1) + "/"
    yield lambda clip: asyncio.run(_funasr(url, clip.pcm))


async def _funasr(url: str, pcm: bytes) -> str:
    start = {
        "mode": "2pass",
        "chunk_size": [5, 10, 5],
        "chunk_interval": 10,
        "audio_fs": SAMPLE_RATE_HZ,
        "wav_name": "recording",
        "wav_format": "pcm",
        "is_speaking": True,
    }
    async with asyncio.timeout(REPLY_S_MAX), connect(url, ping_interval=None) as socket:
        await socket.send(json.dumps(start))
        receiving = asyncio.create_task(_funasr_finals(socket))
        frame = FRAME_MS * SAMPLE_RATE_HZ // 1000 * BYTES_PER_SAMPLE
        for begin in range(0, len(pcm), frame):
            await socket.send(pcm[begin : begin + frame])
            await asyncio.sleep(FRAME_MS / 1000)
        await socket.send('{"is_speaking": false, "is_end": true}')
        return await receiving


async def _funasr_finals(socket: ClientConnection) -> str:
    texts = []
    async for message in socket:
        reply = json.loads(message)
        if reply["mode"] == "2pass-offline" and reply["text"]:
            texts.append(reply["text"])
        if reply.get("is_end"):
            break
    return " ".join(texts)


@contextlib.contextmanager
def upload(base_url: str) -> Iterator[Hear]:
    """A file by OpenAI's client."""
    url = f"{base_url}/v1"
    with openai.OpenAI(api_key="any", base_url=url, timeout=REPLY_S_MAX) as client:
        create = client.audio.transcriptions.create
        yield lambda clip: create(model="whisper-1", file=("a.wav", wav(clip.pcm))).text


@contextlib.contextmanager
def page(base_url: str) -> Iterator[Hear]:
    """The page in Chromium, whose microphone plays the recording."""
    executable = chromium.path()
    if executable is None:
        raise typer.BadParameter("the page needs Chromium on PATH")
    with tempfile.TemporaryDirectory() as directory:
        recording = Path(directory) / "microphone.wav"
        with chromium.running(executable, chromium.write_recording(recording, b"")) as browser:
            visitor = browser.new_context(base_url=base_url, locale="en-US").new_page()
            visitor.set_default_timeout(REPLY_S_MAX * 1000)

            def hear(clip: Clip) -> str:
                chromium.write_recording(recording, clip.pcm, lead_ms=PAGE_LEAD_MS)
                return _spoken(visitor, PAGE_LEAD_MS + pcm_duration_ms(clip.pcm))

            yield hear


def _spoken(visitor: Page, duration_ms: int) -> str:
    visitor.goto("/")
    visitor.get_by_role("button", name="Start the microphone").click()
    visitor.wait_for_selector("body[data-state=live]")
    visitor.wait_for_timeout(duration_ms + PAGE_TAIL_MS)
    visitor.get_by_role("button", name="Stop").click()
    visitor.wait_for_selector("body[data-state=done]")
    return " ".join(visitor.locator("#lines .words").all_text_contents())


WAYS = {"native": native, "funasr": funasr, "openai": upload, "page": page}


def wav(pcm: bytes) -> bytes:
    """``pcm`` as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, BYTES_PER_SAMPLE, SAMPLE_RATE_HZ, 0, "NONE", ""))
        writer.writeframes(pcm)
    return file.getvalue()


# ---------------------------------------------------------------------------------------- command


def printing_errors(hear: Hear, prefix: str) -> Texts:
    """``hear`` for ``measure``, with a line printed for each wrong text."""

    def texts(clips: Sequence[Clip]) -> list[str]:
        found = []
        for clip in clips:
            text = hear(clip)
            if units(clip.language, text) != units(clip.language, clip.words or ""):
                typer.echo(f"{prefix}{clip.name}: {clip.words or 'noise'!r} became {text!r}")
            found.append(text)
        return found

    return texts


def keeps_promises(found: Measurement) -> bool:
    return not found.inventions and all(
        wrong <= ERRORS_MAX.get(language, 1.0) * total
        for language, (wrong, total) in found.errors.items()
    )


def main(
    audio: Annotated[Path, typer.Option("--audio", help="Folder of recordings with refs.json.")],
    model: Annotated[str, typer.Option("--model", help="As in ASR_MODEL.")] = DEFAULT_MODEL,
    ways: Annotated[str, typer.Option("--ways", help="Ways in, by commas.")] = ",".join(WAYS),
    url: Annotated[
        str, typer.Option("--url", help="Of a running system, http://…; else one is started.")
    ] = "",
    languages: Annotated[
        str, typer.Option("--languages", help="Only these, such as en,zh; noise always.")
    ] = "",
) -> None:
    """Print errors and texts of noise by the way in; exit with 1 if there are too many."""
    wanted = set(filter(None, languages.split(",")))
    clips = [c for c in read(audio) if c.words is None or not wanted or c.language in wanted]
    kept = True
    table = Table("way in", "errors", "texts of noise")
    with contextlib.nullcontext(url.rstrip("/")) if url else _own_system(model) as base_url:
        for name in ways.split(","):
            with WAYS[name](base_url) as hear:
                found = measure(clips, printing_errors(hear, f"{name}: "), 1)
            kept = kept and keeps_promises(found)
            table.add_row(name, error_text(found), invention_text(found))
    Console().print(table)
    raise typer.Exit(not kept)


@contextlib.contextmanager
def _own_system(model: str) -> Iterator[str]:
    with supervised_stack({"ASR_MODEL": model, "LOG_LEVEL": "error"}) as stack:
        yield stack.http_url()


if __name__ == "__main__":
    typer.run(main)
