"""Stream a WAV file in real time, and print its text while it is spoken.

python examples/stream.py FILE [ws://HOST:PORT/ws/asr]

The access token, if the server requires one, is taken from ASR_TOKEN.
"""

from __future__ import annotations

import asyncio
import os
import sys
import wave

import asr_client

CHUNK_S = 0.2


async def speak(session: asr_client.Session, path: str) -> None:
    """Send the samples of a WAV file as a microphone would."""
    with wave.open(path) as file:
        while chunk := file.readframes(round(file.getframerate() * CHUNK_S)):
            await session.send(chunk)
            await asyncio.sleep(CHUNK_S)
    await session.finish()


async def main(path: str, url: str) -> None:
    with wave.open(path) as file:
        rate_hz = file.getframerate()
    async with asr_client.connect(
        url, sample_rate_hz=rate_hz, partials=True, token=os.environ.get("ASR_TOKEN")
    ) as session:
        speaking = asyncio.create_task(speak(session, path))
        # If the connection is lost, the session is resumed; each segment is received once.
        async for event in session.events():
            match event:
                case asr_client.PartialResult():
                    print("…", event.text)
                case asr_client.Segment():
                    print(f"{event.start_ms / 1000:7.2f} s", event.text)
                case asr_client.FinalResult():
                    print(event.text)
                    print("stored" if event.stored else "not stored yet")
                case asr_client.Problem():
                    print(event.code, event.message, file=sys.stderr)
        await speaking


if __name__ == "__main__":
    address = sys.argv[2] if len(sys.argv) > 2 else "ws://127.0.0.1:8080/ws/asr"
    asyncio.run(main(sys.argv[1], address))
