"""Transcribe a file of any audio format, or raw PCM.

python examples/transcribe.py FILE [ws://HOST:PORT/ws/asr]
"""

import asyncio
import os
import sys

import asr_client


async def main(path: str, url: str = "ws://127.0.0.1:8080/ws/asr") -> None:
    with open(path, "rb") as file:
        async with asr_client.connect(url, token=os.environ.get("ASR_TOKEN")) as session:
            while chunk := file.read(16_000):
                await session.send(chunk)
            await session.finish()
            async for segment in session:
                print(segment.start_ms, segment.end_ms, segment.text)
            final = await session.final()
    if session.problems or not final.duration_s:
        sys.exit(f"error: {path}: no audio, or not all of it could be transcribed")


if not 2 <= len(sys.argv) <= 3:
    sys.exit(__doc__)
try:
    asyncio.run(main(*sys.argv[1:]))
except asr_client.UnreachableError as error:
    sys.exit(f"error: {error}; start the server, or name another one")
except (OSError, ValueError, asr_client.SessionError) as error:
    sys.exit(f"error: {error}")
