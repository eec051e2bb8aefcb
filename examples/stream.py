"""Stream a file in real time, and print its words as they come.

python examples/stream.py FILE [ws://HOST:PORT/ws/asr]

ASR_TOKEN in the environment, if the server wants a token.
"""

from __future__ import annotations

import asyncio
import os
import sys
import wave

from asr_client import FinalResult, PartialResult, Problem, Segment, Session, connect

CHUNK_S = 0.2


async def speak(session: Session, path: str) -> None:
    """Send a WAV file's samples as a microphone would."""
    with wave.open(path) as file:
        while piece := file.readframes(round(file.getframerate() * CHUNK_S)):
            await session.send(piece)
            await asyncio.sleep(CHUNK_S)
    await session.finish()


async def main(path: str, url: str) -> None:
    with wave.open(path) as file:
        rate_hz = file.getframerate()
    token = os.environ.get("ASR_TOKEN")
    async with connect(url, sample_rate_hz=rate_hz, partials=True, token=token) as session:
        speaking = asyncio.create_task(speak(session, path))
        # A lost connection is replaced meanwhile; each text still comes once.
        async for event in session.events():
            match event:
                case PartialResult():
                    print("…", event.text)
                case Segment():
                    print(f"{event.start_ms / 1000:7.2f} s", event.text)
                case FinalResult():
                    print(event.text)
                    print("stored" if event.stored else "not stored yet")
                case Problem():
                    print(event.code, event.message, file=sys.stderr)
        await speaking


if __name__ == "__main__":
    address = sys.argv[2] if len(sys.argv) > 2 else "ws://127.0.0.1:8080/ws/asr"
    asyncio.run(main(sys.argv[1], address))
