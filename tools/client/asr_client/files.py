"""Transcription of a file in one call."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_client.audio import READ_BYTES
from asr_client.client import DEFAULT_URL, Session, connect
from asr_client.events import Problem, Segment


@dataclass(frozen=True, slots=True)
class Transcript:
    """Result of ``transcribe()``.

    Attributes:
        text: Text of the whole file.
        segments: Text of each utterance, with its times.
        problems: Errors that the server reported. If there are any, the text may be incomplete.
        duration_s: Duration of the audio in seconds.
        stored: The result is committed to the server's database.
    """

    text: str
    segments: tuple[Segment, ...]
    problems: tuple[Problem, ...]
    duration_s: float
    stored: bool


def transcribe(
    path: str | Path,
    url: str = DEFAULT_URL,
    *,
    token: str | None = None,
    sample_rate_hz: int = 16_000,
    model: str | None = None,
    language: str | None = None,
    hotwords: Sequence[str] = (),
    user_id: str | None = None,
    timeout_s: float | None = None,
    tls: ssl.SSLContext | None = None,
) -> Transcript:
    """Transcribe an audio file of any format, or raw 16-bit mono PCM.

    The file is sent as fast as the server takes it. Must not be called from a running event loop:
    use ``connect()`` there. The arguments are those of ``connect()``, and ``timeout_s``, a limit on
    the whole call.

    Raises:
        OSError: If the file cannot be read.
        TimeoutError: If ``timeout_s`` is over.
        ServerBusyError: If the server has no capacity; see its ``retry_after_s``.
        SessionError: If the session cannot be started, or is lost and cannot be resumed.
    """
    data = Path(path).read_bytes()

    async def run() -> Transcript:
        connecting = connect(
            url,
            token=token,
            sample_rate_hz=sample_rate_hz,
            model=model,
            language=language,
            hotwords=hotwords,
            user_id=user_id,
            tls=tls,
        )
        async with asyncio.timeout(timeout_s), connecting as session:
            sending = asyncio.create_task(_send(session, data))
            try:
                segments = [segment async for segment in session]
                await sending
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            final = await session.final()
            return Transcript(
                final.text,
                tuple(segments),
                tuple(session.problems),
                final.duration_s,
                final.stored,
            )

    return asyncio.run(run())


async def _send(session: Session, data: bytes) -> None:
    for start in range(0, len(data), READ_BYTES):
        await session.send(data[start : start + READ_BYTES])
    await session.finish()
